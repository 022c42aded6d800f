"""`python -m scheduler`: run the scheduler until SIGTERM or SIGINT."""

import signal
import sys
import threading

from greencore.carbon import CarbonError
from runtime.logs import configure_logs
from runtime.private_files import set_private_umask
from runtime.settings import get_settings
from runtime.tracing import configure_tracing, stop_tracing
from scheduler.loop import Scheduler
from store.pooling import TransactionPooling


def main() -> None:
    settings = get_settings()
    set_private_umask()
    configure_logs(settings)
    configure_tracing(settings, "scheduler")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        scheduler = Scheduler(settings)
    except (CarbonError, ValueError) as error:
        sys.exit(str(error))
    try:
        scheduler.run(stop)
    except TransactionPooling as error:
        sys.exit(str(error))
    stop_tracing()


if __name__ == "__main__":
    main()
