"""`greentune serve`: the whole service in one terminal, until Ctrl-C."""

import threading

from cli.signals import stop_signals
from cli.stack import Interrupted, Say, Stack
from store.settings import Settings


def serve(settings: Settings, *, say: Say) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP; a second signal cuts the orderly end short.

    Raises `CommandError` where the stack cannot start or does not stay up; everything is stopped by then.
    """
    stop, hurry = threading.Event(), threading.Event()
    with stop_signals(stop, hurry), Stack(settings, say=say, stop=stop, hurry=hurry) as stack:
        try:
            stack.start()
            say(f"GreenTune is at {stack.url} (interface: {stack.url}/docs; logs: {stack.logs}); Ctrl-C stops it")
            stack.watch()
        except Interrupted:
            pass
        say("stopping: a running job is written to a checkpoint first; Ctrl-C again stops at once")
    say("stopped")
