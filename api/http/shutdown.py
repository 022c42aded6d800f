"""Hears that the server is asked to stop before it waits for its open answers: some would never end by themselves."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_stop_signal(callback: Callable[[], None]) -> Iterator[None]:
    """Have the running loop call `callback` at a stop signal, then do what the signal did so far.

    uvicorn ends an application's lifespan only when all of its connections are closed, so that is too late to close
    them. Off the main thread, where no signal arrives, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    before.update({number: signal.signal(number, stop) for number in STOP_SIGNALS})
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
