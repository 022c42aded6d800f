"""Handling of stop signals, which `greentune serve` and the demonstration share."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_stop_signals(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call `interrupt` at each SIGINT, SIGTERM and SIGHUP within the block."""
    # Under nohup, SIGHUP stays ignored.
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handled = [signal.SIGINT, signal.SIGTERM, *([] if ignores_hangup else [signal.SIGHUP])]
    before = {number: signal.signal(number, lambda *_: interrupt()) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
