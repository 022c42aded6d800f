"""Sentences that describe a job's events, one for each event type that the service writes."""

from collections.abc import Mapping
from typing import Any

from api.figures import format_number, format_percent, format_value

QUEUED_FROM = {
    "validating": "Prepared and queued",
    "deferred": "Gate opened, queued",
    "running": "Released by its worker, queued again",
    "pausing": "Released by its worker, queued again",
}
# Of the events that have only a reason.
LEADS = {
    "job.submitted": "Submitted",
    "job.validating": "To be prepared again",
    "job.pausing": "Pause requested from its worker",
    "job.paused": "Paused",
    "job.cancelling": "Stop requested from its worker",
    "job.cancelled": "Cancelled",
    "job.failed": "Failed",
    "job.terminated": "Its process was asked to stop",
    "checkpoint.best_missing": "The best weights could not be kept",
    "gate.closed": "Gate closed during the run",
    "energy.differs": "Two measurements of its energy differ",
    "energy.lost": "Energy lost with its worker is estimated",
    "energy.meter_silent": "A meter does not answer; its energy is estimated",
}


def describe_event(event_type: str, data: Mapping[str, Any]) -> str:
    """Return a sentence for an event; for an unknown type, its data as `name: value` pairs."""
    get, more = data.get, ""
    match event_type:
        case "job.running":
            attempt = f" in attempt {data['attempt']}" if (get("attempt") or 1) > 1 else ""
            return f"Claimed by {get('worker') or 'a worker'}{attempt}"
        case "job.succeeded":
            return f"Succeeded, with {data['artifacts']} files" if get("artifacts") else "Succeeded"
        case "training.started":
            precision = f", in {data['precision']}" if get("precision") else ""
            return (
                f"Training resumed after step {data['steps_done']}" if get("steps_done") else "Training started"
            ) + precision
        case "training.stopped_early":
            return f"Training {get('reason') or 'stopped early'}"
        case "epoch.started":
            return f"Epoch {get('epoch')} started with ρ {format_number(get('rho'))}"
        case "epoch.finished":
            reached, loss = format_number(get("rho_reached")), format_number(get("loss"))
            return f"Epoch {get('epoch')} finished: ρ reached {reached}, loss {loss}"
        case "emissions.settled":
            unpriced = f"; {format_number(data['unpriced_kwh'])} kWh remain unpriced" if get("unpriced_kwh") else ""
            return f"Emissions settled: {format_number(get('emissions_gco2e'))} gCO2e{unpriced}"
        case "files.removed":
            return f"Removed after the retention period: {', '.join(get('what') or ['its files'])}"
        case "job.queued":
            lead = QUEUED_FROM.get(get("from", ""), "Queued")
        case "job.deferred":
            lead = "Deferred to a cleaner hour"
            more = f" (estimated saving {format_percent(data['saving'])})" if get("saving") else ""
        case "job.dispatched":
            forced = ", since its deadline leaves no time to wait" if get("forced") else ""
            lead = f"Dispatched to zone {data['zone']}{forced}" if get("zone") else f"Dispatched{forced}"
        case "method.chosen":
            lead = f"Method {get('method')} chosen"
        case "checkpoint.failed":
            lead = f"The checkpoint at step {get('step')} could not be written"
        case "checkpoint.damaged":
            lead = f"The checkpoint {get('checkpoint')} is damaged and no longer used"
        case "micro_batch.chosen":
            lead = f"Micro-batches of {get('rows')} rows"
        case "micro_batch.halved":
            return (
                f"Out of memory in step {get('step')} with {get('before')} rows at once: it is repeated with "
                f"{get('after')}"
            )
        case "budget.exhausted":
            lead = f"Budget exhausted after {get('epochs_done')} epochs"
        case _ if event_type in LEADS:
            lead = LEADS[event_type]
        case _:
            return "; ".join(f"{name}: {format_value(value)}" for name, value in data.items() if value is not None)
    return f"{lead}: {data['reason']}{more}" if get("reason") else lead + more
