"""The devices that are free for the next jobs: of each training worker, and in each zone."""

from collections import Counter
from collections.abc import Mapping, Sequence

from store.tables import Worker


class FreeGpus:
    """Free devices of live workers, less those of jobs that a message is on its way for.

    A zone has as many as its workers together, less those of jobs whose message any of them may take up. Where workers
    have several devices, each message is for one of them: of a scheduler before this one it is not known for which, and
    it counts against each.
    """

    def __init__(self, workers: Sequence[Worker], held: Mapping[str | None, int]) -> None:
        self._zones = {worker.id: worker.zone for worker in workers}
        self._of_worker = {worker.id: max(0, worker.gpus - held.get(worker.id, 0)) for worker in workers}
        self._on_the_way = Counter[str | None]()
        self._to_unknown = Counter[str | None]()
        self._with_several = {worker.zone for worker in workers if worker.gpus > 1}

    def of_worker(self, worker_id: str) -> int:
        """Return how many of a worker's devices are free; 0 of one that is not alive."""
        zone = self._zones.get(worker_id)
        to_unknown = self._to_unknown[zone] if zone in self._with_several else 0
        return max(0, self._of_worker.get(worker_id, 0) - to_unknown)

    def in_zone(self, zone: str | None) -> int:
        """Return how many devices of a zone are free."""
        there = sum(free for worker, free in self._of_worker.items() if self._zones[worker] == zone)
        return max(0, there - self._on_the_way[zone])

    def take(self, gpus: int, *, zone: str | None, worker_id: str | None) -> None:
        """Take devices for a job: of a worker, or of whichever worker of the zone takes its message up."""
        if worker_id in self._of_worker:
            assert worker_id is not None
            self._of_worker[worker_id] = max(0, self._of_worker[worker_id] - gpus)
        else:
            self._on_the_way[zone] += gpus
            self._to_unknown[zone] += gpus if worker_id is None else 0

    def reserve(self, workers: Sequence[Worker]) -> None:
        """Keep the worker with most free devices for a job that waits for more of them: no later job gets these."""
        fullest = max(workers, key=lambda worker: (self.of_worker(worker.id), worker.gpus), default=None)
        if fullest is not None:
            self._of_worker[fullest.id] = 0
