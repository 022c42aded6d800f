"""Reads resources as models: one, a short list, and all items of a paginated list."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from greentune.errors import UnexpectedAnswer
from greentune.models import Answer
from greentune.transport import Params, Transport, decode_json

PAGE_ITEMS = 200

A = TypeVar("A", bound=Answer)


class Resources:
    """Reads and deletes resources by their path."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, kind: type[A], path: str, params: Params | None = None) -> A:
        """Return the resource at `path`."""
        return parse_answer(kind, self._transport.call("GET", path, params=params, repeatable=True))

    def all(self, path: str, item: type[A]) -> list[A]:
        """Return a list that is not paginated."""
        return _page(item, self._transport.call("GET", path, repeatable=True))[0]

    def pages(
        self,
        path: str,
        item: type[A],
        cursor: Callable[[A], str | int],
        params: Params | None = None,
        *,
        most: int | None = None,
    ) -> Iterator[A]:
        """Iterate over the items of a paginated list, at most `most`; `cursor` returns an item's value for `after`."""
        return islice(
            self._iterate_pages(path, item, cursor, {"limit": min(most or PAGE_ITEMS, PAGE_ITEMS), **(params or {})}),
            most,
        )

    def _iterate_pages(self, path: str, item: type[A], cursor: Callable[[A], str | int], params: Params) -> Iterator[A]:
        while True:
            items, has_more = _page(item, self._transport.call("GET", path, params=params, repeatable=True))
            yield from items
            if not has_more or not items:
                return
            params = {**params, "after": cursor(items[-1])}

    def delete(self, path: str) -> None:
        """Delete the resource at `path`."""
        self._transport.call("DELETE", path, repeatable=True)


def quote_path_segment(text: str) -> str:
    """Quote a segment of a path, such as an id: a slash in it must not change the path."""
    return quote(text, safe="") or "%20"


def parse_answer(kind: type[A], response: httpx.Response) -> A:
    """Parse an answer as a model; raises `UnexpectedAnswer` where it does not match."""
    return _validate(kind, decode_json(response), response)


def _page(item: type[A], response: httpx.Response) -> tuple[list[A], bool]:
    body = decode_json(response)
    try:
        return [_validate(item, each, response) for each in body["data"]], bool(body["has_more"])
    except (TypeError, KeyError) as error:
        raise UnexpectedAnswer(f"{response.request.url.path}: not a list in the expected format") from error


def _validate(kind: type[A], body: Any, response: httpx.Response) -> A:
    try:
        return kind.model_validate(body)
    except ValueError as error:
        path = response.request.url.path
        raise UnexpectedAnswer(f"{path}: not a {kind.__name__} in the expected format: {error}") from error
