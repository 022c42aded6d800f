"""Sentences that describe a job's events, one for each event type that the service writes."""

from collections.abc import Callable, Mapping
from typing import Any

from api.figures import format_number, format_percent, format_value

Data = Mapping[str, Any]


def describe_event(event_type: str, data: Data) -> str:
    """Return a sentence for an event; for an unknown type, its data as `name: value` pairs."""
    describe = _SENTENCES.get(event_type)
    return describe(data) if describe is not None else _list_data(data)


def _with_reason(lead: str, data: Data) -> str:
    return f"{lead}: {data['reason']}" if data.get("reason") else lead


def _list_data(data: Data) -> str:
    return "; ".join(f"{name}: {format_value(given)}" for name, given in data.items() if given is not None)


def _phrase(lead: str) -> Callable[[Data], str]:
    return lambda data: _with_reason(lead, data)


def _queued(data: Data) -> str:
    leads = {
        "validating": "Prepared and queued",
        "deferred": "Gate opened, queued",
        "running": "Released by its worker, queued again",
        "pausing": "Released by its worker, queued again",
    }
    return _with_reason(leads.get(data.get("from", ""), "Queued"), data)


def _deferred(data: Data) -> str:
    text = _with_reason("Deferred to a cleaner hour", data)
    return f"{text} (estimated saving {format_percent(data['saving'])})" if data.get("saving") else text


def _dispatched(data: Data) -> str:
    zone = f" to zone {data['zone']}" if data.get("zone") else ""
    forced = ", since its deadline leaves no time to wait" if data.get("forced") else ""
    return _with_reason(f"Dispatched{zone}{forced}", data)


def _running(data: Data) -> str:
    worker = f" by {data['worker']}" if data.get("worker") else " by a worker"
    attempt = data.get("attempt") or 1
    return f"Claimed{worker}" + (f" in attempt {attempt}" if attempt > 1 else "")


def _succeeded(data: Data) -> str:
    count = data.get("artifacts")
    return f"Succeeded, with {count} files" if count else "Succeeded"


def _training_started(data: Data) -> str:
    done = data.get("steps_done")
    precision = f", in {data['precision']}" if data.get("precision") else ""
    return (f"Training resumed after step {done}" if done else "Training started") + precision


def _epoch_started(data: Data) -> str:
    return f"Epoch {data.get('epoch')} started with ρ {format_number(data.get('rho'))}"


def _epoch_finished(data: Data) -> str:
    reached, loss = format_number(data.get("rho_reached")), format_number(data.get("loss"))
    return f"Epoch {data.get('epoch')} finished: ρ reached {reached}, loss {loss}"


def _gate_closed(data: Data) -> str:
    return _with_reason("Gate closed during the run", data)


def _settled(data: Data) -> str:
    unpriced_kwh = data.get("unpriced_kwh")
    unpriced = f"; {format_number(unpriced_kwh)} kWh remain unpriced" if unpriced_kwh else ""
    return f"Emissions settled: {format_number(data.get('emissions_gco2e'))} gCO2e{unpriced}"


def _removed(data: Data) -> str:
    return f"Removed after the retention period: {', '.join(data.get('what') or ['its files'])}"


def _checkpoint_failed(data: Data) -> str:
    return _with_reason(f"The checkpoint at step {data.get('step')} could not be written", data)


def _checkpoint_damaged(data: Data) -> str:
    return _with_reason(f"The checkpoint {data.get('checkpoint')} is damaged and no longer used", data)


def _budget_exhausted(data: Data) -> str:
    return _with_reason(f"Budget exhausted after {data.get('epochs_done')} epochs", data)


_SENTENCES: Mapping[str, Callable[[Data], str]] = {
    "job.submitted": _phrase("Submitted"),
    "job.validating": _phrase("To be prepared again"),
    "job.queued": _queued,
    "job.deferred": _deferred,
    "job.dispatched": _dispatched,
    "job.running": _running,
    "job.pausing": _phrase("Pause requested from its worker"),
    "job.paused": _phrase("Paused"),
    "job.cancelling": _phrase("Stop requested from its worker"),
    "job.cancelled": _phrase("Cancelled"),
    "job.succeeded": _succeeded,
    "job.failed": _phrase("Failed"),
    "job.terminated": _phrase("Its process was asked to stop"),
    "training.started": _training_started,
    "epoch.started": _epoch_started,
    "epoch.finished": _epoch_finished,
    "gate.closed": _gate_closed,
    "energy.differs": _phrase("Two measurements of its energy differ"),
    "energy.lost": _phrase("Energy lost with its worker is estimated"),
    "energy.meter_silent": _phrase("A meter does not answer; its energy is estimated"),
    "emissions.settled": _settled,
    "files.removed": _removed,
    "checkpoint.failed": _checkpoint_failed,
    "checkpoint.damaged": _checkpoint_damaged,
    "budget.exhausted": _budget_exhausted,
}
