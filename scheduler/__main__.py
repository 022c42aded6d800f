"""`python -m scheduler`: run until SIGTERM or SIGINT."""

import signal
import sys
import threading

from greencore.carbon import CarbonError
from scheduler.service import Scheduler
from store.logs import configure_logs
from store.pooling import TransactionPooling
from store.private_files import set_private_umask
from store.settings import get_settings
from store.tracing import configure_tracing, stop_tracing


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
