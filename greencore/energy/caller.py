"""Calls that may hang for ever, made in a thread of their own and waited for no longer than a time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class CallTimedOut(Exception):
    """A call has not returned in time, or an earlier one has not returned yet."""


class TimeoutExecutor:
    """Makes one call after another in a daemon thread, which ends with `close` unless a call hangs in it."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._newest: Future[Any] | None = None
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Result], *, seconds: float) -> Result:
        """Return what `work` returns, or raise what it raises; `CallTimedOut` after `seconds`, or at once where an
        earlier call has not returned yet: then `work` is not begun."""
        if self._newest is not None and not self._newest.done():
            raise CallTimedOut("an earlier call has not returned yet")
        future: Future[Result] = Future()
        self._newest = future
        self._work.put((work, future))
        try:
            return future.result(seconds)
        except TimeoutError:
            if future.done():
                raise
            raise CallTimedOut(f"no answer within {seconds:g} s") from None

    def close(self) -> None:
        """End the thread after its last call; one that hangs is left alone."""
        self._work.put(None)
        if self._newest is None or self._newest.done():
            self._thread.join()

    def _serve(self) -> None:
        while (order := self._work.get()) is not None:
            work, future = order
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  (handed to whom the call was made for)
                future.set_exception(error)
