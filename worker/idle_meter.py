"""Meters a host's energy from the worker process, so that its idle energy is known."""

import threading
import time
from collections import deque
from collections.abc import Callable

import structlog
from celery.signals import worker_ready, worker_shutdown
from sqlalchemy.exc import DBAPIError

from greencore.energy import EnergySource
from runtime.settings import Settings
from store.accounting.host_shares import IdleSample, store_idle_energy
from store.accounting.lost_energy import get_assumed_gpu_power
from store.database import Database
from worker.database_retry import STATEMENT_TIMEOUT_SECONDS
from worker.device import device_name
from worker.forking import block_forking
from worker.registration import host_id

log = structlog.get_logger()

# Samples that wait for the database or for the end of a silent attempt; the oldest are dropped.
MAX_SAMPLES = 60


class IdleMeter:
    """Samples the energy of processor, memory and the worker's GPUs, and stores what no attempt on the host used.

    CodeCarbon's own thread is not used, since jobs are forked from this process. Each worker of a host samples, and
    the database counts each period once (`store.accounting.host_shares`).
    """

    def __init__(
        self, database: Database, settings: Settings, *, host: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database, self._settings = database, settings
        self._host, self._monotonic = host, monotonic
        self._source: EnergySource | None = None
        self._since = 0.0
        self._samples: deque[IdleSample] = deque(maxlen=MAX_SAMPLES)

    def sample(self) -> None:
        """Sample the energy since the last call, and store the pending samples; the first call opens the meter.

        Raises `DBAPIError`; the samples are stored by a later call then.
        """
        if self._source is None:
            self._open()
            return
        reading = self._source.read(self._since)
        gpu_kwh = {uuid: reading.gpu.kwh * share for uuid, share in self._source.gpu_shares().items()}
        self._samples.append(IdleSample(self._since, reading.until, reading.cpu.kwh, reading.ram.kwh, gpu_kwh))
        self._since = reading.until
        with self._database.session() as session:
            used = store_idle_energy(
                session,
                self._host,
                self._settings.training_site.zone,
                list(self._samples),
                silent_seconds=self._settings.lease_seconds / 2,
            )
        for _ in range(used):
            self._samples.popleft()

    def _open(self) -> None:
        self._source = EnergySource(
            self._settings.cpu_power_w,
            self._settings.ram_power_w,
            assumed_gpu_power_w=get_assumed_gpu_power(device_name(), self._settings.assumed_power_w),
            monotonic=self._monotonic,
            samples=False,
        )
        self._source.open(gpu_ids=None)
        self._since = self._monotonic()


def start_idle_meter(settings: Settings) -> None:
    """Sample the host every `energy_interval_seconds` in a thread, from worker_ready to worker_shutdown."""
    database = Database(settings.database_url, statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS)
    stopped = threading.Event()

    def sample_regularly() -> None:
        meter = IdleMeter(database, settings, host=host_id())
        while not stopped.wait(settings.energy_interval_seconds):
            with block_forking():
                try:
                    meter.sample()
                except DBAPIError as error:
                    log.warning("idle_energy.not_stored", error=str(error.orig))
                # The connection is needed once a minute: it is not kept.
                database.dispose()

    @worker_ready.connect(weak=False)
    def ready(**_: object) -> None:
        threading.Thread(target=sample_regularly, name="idle-energy", daemon=True).start()

    @worker_shutdown.connect(weak=False)
    def shutdown(**_: object) -> None:
        stopped.set()
