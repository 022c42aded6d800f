"""Answers as models: one, a short list, and every item of a list that comes in pages."""

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
    """Reads and deletes what has an address of its own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, kind: type[A], path: str, params: Params | None = None) -> A:
        """What is at `path`."""
        return parse_answer(kind, self._transport.call("GET", path, params=params, repeatable=True))

    def all(self, path: str, item: type[A]) -> list[A]:
        """A list that is given at once."""
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
        """The items of a list that comes in pages, the first `most` of them or all.

        `cursor` is what an item is named by in `after`.
        """
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
        """Delete what is at `path`."""
        self._transport.call("DELETE", path, repeatable=True)


def quote_path_segment(text: str) -> str:
    """A part of a path, such as an id; a slash in it must not lead elsewhere."""
    return quote(text, safe="") or "%20"


def parse_answer(kind: type[A], response: httpx.Response) -> A:
    """Raises `UnexpectedAnswer` where an answer is of another kind."""
    return _validate(kind, decode_json(response), response)


def _page(item: type[A], response: httpx.Response) -> tuple[list[A], bool]:
    body = decode_json(response)
    try:
        return [_validate(item, each, response) for each in body["data"]], bool(body["has_more"])
    except (TypeError, KeyError) as error:
        raise UnexpectedAnswer(f"{response.request.url.path}: not a list as this client knows it") from error


def _validate(kind: type[A], body: Any, response: httpx.Response) -> A:
    try:
        return kind.model_validate(body)
    except ValueError as error:
        path = response.request.url.path
        raise UnexpectedAnswer(f"{path}: not a {kind.__name__} as this client knows it: {error}") from error
