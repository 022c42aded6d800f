"""What happened to a job, in words: a sentence for each type of event that the service writes."""

from collections.abc import Callable, Mapping
from typing import Any

from api.figures import format_number, format_percent, format_value

Data = Mapping[str, Any]


def describe_event(event_type: str, data: Data) -> str:
    """An event in words; of a type that has none here, its data by name."""
    describe = _SENTENCES.get(event_type)
    return describe(data) if describe is not None else _by_name(data)


def _with_reason(lead: str, data: Data) -> str:
    return f"{lead}: {data['reason']}" if data.get("reason") else lead


def _by_name(data: Data) -> str:
    return "; ".join(f"{name}: {format_value(given)}" for name, given in data.items() if given is not None)


def _phrase(lead: str) -> Callable[[Data], str]:
    return lambda data: _with_reason(lead, data)


def _queued(data: Data) -> str:
    leads = {
        "validating": "Checked and measured, waits in the queue",
        "deferred": "Its gate has opened, waits in the queue",
        "running": "Given back by its worker, waits in the queue",
        "pausing": "Given back by its worker, waits in the queue",
    }
    return _with_reason(leads.get(data.get("from", ""), "Waits in the queue"), data)


def _deferred(data: Data) -> str:
    text = _with_reason("Waits for a greener hour", data)
    return f"{text} (saves {format_percent(data['saving'])} est.)" if data.get("saving") else text


def _dispatched(data: Data) -> str:
    zone = f" to zone {data['zone']}" if data.get("zone") else ""
    forced = ", since its deadline leaves no time to wait" if data.get("forced") else ""
    return _with_reason(f"Sent{zone}{forced}", data)


def _running(data: Data) -> str:
    worker = f" by {data['worker']}" if data.get("worker") else " by a worker"
    attempt = data.get("attempt") or 1
    return f"Taken up{worker}" + (f" in attempt {attempt}" if attempt > 1 else "")


def _succeeded(data: Data) -> str:
    count = data.get("artifacts")
    return f"Done, with {count} files" if count else "Done"


def _training_started(data: Data) -> str:
    done = data.get("steps_done")
    precision = f", in {data['precision']}" if data.get("precision") else ""
    return (f"Training goes on after step {done}" if done else "Training begins") + precision


def _epoch_started(data: Data) -> str:
    return f"Epoch {data.get('epoch')} begins with ρ {format_number(data.get('rho'))}"


def _epoch_finished(data: Data) -> str:
    reached, loss = format_number(data.get("rho_reached")), format_number(data.get("loss"))
    return f"Epoch {data.get('epoch')} is over: ρ reached {reached}, loss {loss}"


def _gate_closed(data: Data) -> str:
    return _with_reason("Its gate has closed while it ran", data)


def _settled(data: Data) -> str:
    unpriced_kwh = data.get("unpriced_kwh")
    without = f"; {format_number(unpriced_kwh)} kWh stay without a price" if unpriced_kwh else ""
    return f"Every price is final: {format_number(data.get('emissions_gco2e'))} gCO2e{without}"


def _removed(data: Data) -> str:
    return f"Removed after the time that files are kept: {', '.join(data.get('what') or ['its files'])}"


def _checkpoint_failed(data: Data) -> str:
    return _with_reason(f"The checkpoint at step {data.get('step')} could not be written", data)


def _checkpoint_damaged(data: Data) -> str:
    return _with_reason(f"The checkpoint {data.get('checkpoint')} is damaged, and no longer counts", data)


def _budget_exhausted(data: Data) -> str:
    return _with_reason(f"Its budget is used up after {data.get('epochs_done')} epochs", data)


_SENTENCES: Mapping[str, Callable[[Data], str]] = {
    "job.submitted": _phrase("Submitted"),
    "job.validating": _phrase("To be checked and measured again"),
    "job.queued": _queued,
    "job.deferred": _deferred,
    "job.dispatched": _dispatched,
    "job.running": _running,
    "job.pausing": _phrase("Its worker is to pause"),
    "job.paused": _phrase("Paused"),
    "job.cancelling": _phrase("Its worker is to stop"),
    "job.cancelled": _phrase("Cancelled"),
    "job.succeeded": _succeeded,
    "job.failed": _phrase("Failed"),
    "job.terminated": _phrase("Its process was told to end"),
    "training.started": _training_started,
    "epoch.started": _epoch_started,
    "epoch.finished": _epoch_finished,
    "gate.closed": _gate_closed,
    "energy.differs": _phrase("Two counts of its energy differ"),
    "energy.lost": _phrase("Energy was lost with its worker, and is estimated"),
    "energy.meter_silent": _phrase("A meter does not answer, and its energy is estimated"),
    "emissions.settled": _settled,
    "files.removed": _removed,
    "checkpoint.failed": _checkpoint_failed,
    "checkpoint.damaged": _checkpoint_damaged,
    "budget.exhausted": _budget_exhausted,
}
