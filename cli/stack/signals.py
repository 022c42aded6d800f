"""Stop signals as events; shared by `greentune serve` and the demonstration."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals(stop: threading.Event, force: threading.Event) -> Iterator[None]:
    """Within the block, SIGINT, SIGTERM and SIGHUP set `stop`; once it is set, they set `force`."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            force.set()
        stop.set()

    # Under nohup, the end of the terminal is not to be heeded.
    heeded = [signal.SIGINT, signal.SIGTERM]
    heeded += [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
