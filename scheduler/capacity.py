"""The workers that are free, each of which takes one job of any zone that it serves."""

from collections.abc import Iterable, Mapping, Sequence


class Capacity:
    """Counts each free worker once, whatever number of zones it serves.

    What is taken is held against the workers as a whole, by augmenting paths (Kuhn): a job goes to a worker of several
    zones only as long as all that was taken can still be run at the same time.
    """

    def __init__(self, zones_of_worker: Mapping[str, Sequence[str]]) -> None:
        self._workers: dict[str, list[str]] = {}
        for worker, zones in zones_of_worker.items():
            for zone in zones:
                self._workers.setdefault(zone, []).append(worker)
        self._taken: dict[str, str] = {}
        # Taking more never frees anything: a zone that is full stays so.
        self._full: set[str] = set()

    def has(self, zone: str) -> bool:
        """Whether a job of the zone can be taken."""
        if zone in self._full:
            return False
        if self._path(zone, set()) is None:
            self._full.add(zone)
            return False
        return True

    def has_any(self, zones: Iterable[str]) -> bool:
        return any(self.has(zone) for zone in zones)

    def take(self, zone: str) -> bool:
        """Have a worker run a job of the zone; False where none is left."""
        if not self.has(zone):
            return False
        path = self._path(zone, set())
        assert path is not None
        for worker, serves in path:
            self._taken[worker] = serves
        return True

    def _path(self, zone: str, seen: set[str]) -> list[tuple[str, str]] | None:
        """Which worker takes which zone so that one more job of `zone` fits in; None where that cannot be."""
        for worker in self._workers.get(zone, ()):
            if worker in seen:
                continue
            seen.add(worker)
            serves = self._taken.get(worker)
            further = [] if serves is None else self._path(serves, seen)
            if further is not None:
                return [*further, (worker, zone)]
        return None
