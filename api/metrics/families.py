"""Converts the database's figures to Prometheus metric families."""

from collections.abc import Collection, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from api.metrics.service_figures import WAITING_STATUSES, ServiceMetrics
from store.lifecycle.status import JobStatus
from store.tables import Provider


def build_metric_families(figures: ServiceMetrics, *, zones: Collection[str], lease_seconds: float) -> Iterator[Metric]:
    """Yield every family, with 0 for a zone without a value, so that an alert sees a number fall, not vanish."""
    yield from _jobs(figures, zones, lease_seconds)
    yield from _emissions(figures)
    yield from _intensities(figures)
    yield from _providers(figures.providers, now=figures.at.timestamp())
    yield from _processes(figures, zones)


def _jobs(figures: ServiceMetrics, zones: Collection[str], lease_seconds: float) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "greentune_jobs", "Jobs by zone and status; no zone: not placed yet", labels=["zone", "status"]
    )
    counts = {(zone, status): 0 for zone in (*zones, "") for status in JobStatus}
    counts.update({(found.zone, found.status): found.jobs for found in figures.counts})
    for (zone, status), number in sorted(counts.items()):
        jobs.add_metric([zone, status], number)
    yield jobs

    oldest = GaugeMetricFamily(
        "greentune_oldest_waiting_job_age_seconds",
        "How long the oldest job has been validating, queued or deferred, since it was submitted or last queued",
        labels=["zone", "status"],
    )
    ages = {(zone, status): 0.0 for zone in (*zones, "") for status in WAITING_STATUSES}
    ages.update({(found.zone, found.status): found.oldest_seconds for found in figures.open_jobs})
    for (zone, status), age in sorted(ages.items()):
        if status in WAITING_STATUSES:
            oldest.add_metric([zone, status], age)
    yield oldest

    # By zone, not by job: a label for each job would create a time series for each.
    rho = GaugeMetricFamily("greentune_job_rho", "Mean ρ of the running jobs of a zone", labels=["zone"])
    for found in figures.open_jobs:
        if found.status is JobStatus.RUNNING and found.rho is not None:
            rho.add_metric([found.zone], found.rho)
    yield rho

    lease = GaugeMetricFamily(
        "greentune_lease_age_seconds",
        "Seconds since the heartbeat of the running, pausing or cancelling job whose worker has been silent longest",
        labels=["zone"],
    )
    silences: dict[str, float] = {}
    for found in figures.open_jobs:
        if found.lease_seconds_left is not None:
            age = max(0.0, lease_seconds - found.lease_seconds_left)
            silences[found.zone] = max(silences.get(found.zone, 0.0), age)
    for zone, age in sorted(silences.items()):
        lease.add_metric([zone], age)
    yield lease


def _emissions(figures: ServiceMetrics) -> Iterator[Metric]:
    energy = CounterMetricFamily(
        "greentune_energy_kwh", "Metered energy of all jobs, lost attempts included", labels=["zone", "component"]
    )
    for total in figures.energy:
        energy.add_metric([total.zone, total.component], total.kwh)
    yield energy

    idle = CounterMetricFamily(
        "greentune_idle_energy_kwh",
        "Metered energy of hosts with a training worker that no job used",
        labels=["zone", "component"],
    )
    for unused in figures.idle_energy:
        idle.add_metric([unused.zone, unused.component], unused.kwh)
    yield idle

    emissions = GaugeMetricFamily(
        "greentune_emissions_gco2e",
        "Emissions of all jobs as priced now: a settled price may lower what a provisional one had raised; energy "
        "without a price is not in it",
        labels=["zone"],
    )
    sums: dict[str, float] = {}
    for found in figures.counts:
        sums[found.zone] = sums.get(found.zone, 0.0) + found.emissions_gco2e
    for zone, gco2e in sorted(sums.items()):
        emissions.add_metric([zone], gco2e)
    yield emissions

    unpriced = GaugeMetricFamily(
        "greentune_unpriced_energy_kwh", "Metered energy of all jobs that has no price", labels=["zone"]
    )
    kwh = dict.fromkeys(sums, 0.0) | figures.unpriced_kwh
    for zone, amount in sorted(kwh.items()):
        unpriced.add_metric([zone], amount)
    yield unpriced


def _intensities(figures: ServiceMetrics) -> Iterator[Metric]:
    labels = ["zone", "source", "signal"]
    intensity = GaugeMetricFamily(
        "greentune_carbon_intensity_gco2e_per_kwh", "The newest reading of a zone's grid", labels=labels
    )
    age = GaugeMetricFamily(
        "greentune_carbon_intensity_age_seconds", "Seconds since that reading's interval began", labels=labels
    )
    for found in figures.intensities:
        # A source may end in the file or step of its reading, in brackets; the text before is its kind.
        values = [found.zone, found.source.partition(" (")[0], found.signal]
        intensity.add_metric(values, found.gco2e_per_kwh)
        age.add_metric(values, found.age_seconds)
    yield intensity
    yield age


def _providers(providers: Sequence[Provider], *, now: float) -> Iterator[Metric]:
    failures = CounterMetricFamily(
        "greentune_provider_failures", "Failed requests to the source of a zone's intensity", labels=["zone"]
    )
    in_a_row = GaugeMetricFamily(
        "greentune_provider_consecutive_failures", "Failures since the source last answered", labels=["zone"]
    )
    success = GaugeMetricFamily(
        "greentune_provider_last_success_age_seconds", "Seconds since the source last answered", labels=["zone"]
    )
    for provider in providers:
        failures.add_metric([provider.zone], provider.failures)
        in_a_row.add_metric([provider.zone], provider.consecutive_failures)
        if provider.last_success_at is not None:
            success.add_metric([provider.zone], max(0.0, now - provider.last_success_at.timestamp()))
    yield from (failures, in_a_row, success)


def _processes(figures: ServiceMetrics, zones: Collection[str]) -> Iterator[Metric]:
    labels = ["zone", "role"]
    alive = GaugeMetricFamily("greentune_workers", "Live processes; only training workers have a zone", labels=labels)
    silent = GaugeMetricFamily(
        "greentune_workers_silent", "Processes without a heartbeat for longer than a lease", labels=labels
    )
    silence = GaugeMetricFamily(
        "greentune_worker_heartbeat_age_seconds",
        "Seconds since the heartbeat of the process that has been silent longest",
        labels=labels,
    )
    gpus = GaugeMetricFamily("greentune_gpus", "Devices that live training workers give to jobs", labels=["zone"])
    busy = GaugeMetricFamily("greentune_gpus_busy", "Devices that jobs hold", labels=["zone"])
    there, taken = dict.fromkeys(zones, 0), dict.fromkeys(zones, 0)
    for found in figures.processes:
        if found.role == "train":
            there[found.zone] = found.gpus
    for jobs in figures.open_jobs:
        taken[jobs.zone] = taken.get(jobs.zone, 0) + jobs.gpus
    for family, numbers in ((gpus, there), (busy, {zone: number for zone, number in taken.items() if zone})):
        for zone, number in sorted(numbers.items()):
            family.add_metric([zone], number)
    expected = [*((zone, "train") for zone in zones), ("", "prepare"), ("", "scheduler")]
    counts = dict.fromkeys(expected, (0, 0))
    for found in figures.processes:
        counts[found.zone, found.role] = (found.alive, found.silent)
        silence.add_metric([found.zone, found.role], found.longest_silence_seconds)
    for (zone, role), (living, lost) in sorted(counts.items()):
        alive.add_metric([zone, role], living)
        silent.add_metric([zone, role], lost)
    yield from (alive, silent, silence, gpus, busy)
