"""Calls with a timeout, made in a thread, for a library that may hang."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class CallTimedOut(Exception):
    """A call exceeded its timeout, or an earlier call is still running."""


class TimeoutExecutor:
    """Executor of one call after another in a daemon thread, which `close` ends unless a call hangs."""

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._newest: Future[Any] | None = None
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Result], *, seconds: float) -> Result:
        """Run `work` and return its result, or raise its error.

        Raises `CallTimedOut` after `seconds`, or at once, without starting `work`, where an earlier call still runs.
        """
        if self._newest is not None and not self._newest.done():
            raise CallTimedOut("an earlier call is still running")
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
        """End the thread after its last call; a call that hangs is not waited for."""
        self._work.put(None)
        if self._newest is None or self._newest.done():
            self._thread.join()

    def _serve(self) -> None:
        while (order := self._work.get()) is not None:
            work, future = order
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  (raised in `call`)
                future.set_exception(error)
