"""Runs a simulation within limits of concurrency and effort, so that it does not block other requests."""

import threading
from datetime import datetime

from api.dependencies import AppContext
from api.http.problems import Problem, invalid_field, unavailable
from api.policies.history import load_history, series_span
from api.policies.schemas import resolve_policy
from api.policies.simulated import SimulationOut
from api.policies.simulation_request import SimulationRequest
from greencore.carbon import IntensitySeries
from greencore.policy import BacktestError, Policy, backtest
from greencore.policy.backtesting.simulation import latest_finish_hours
from greencore.policy.backtesting.slots import Slots
from greencore.policy.models import Budget

MAX_CONCURRENT_SIMULATIONS = 2
# In steps of a gate's plan, of which a core computes about ten million a second.
MAX_EFFORT = 1e8
EFFORT_WITHOUT_GATE = 10  # hours of planning that take as long as a run without a gate
BUDGET_EFFORT = 20  # for each epoch that is planned, at each epoch

_simulation_slots = threading.BoundedSemaphore(MAX_CONCURRENT_SIMULATIONS)


def run_simulation(request: SimulationRequest, context: AppContext, *, now: datetime) -> SimulationOut:
    """Simulate a policy. Raises the 422 that names the invalid field, and the 503 if too many simulations run.

    No transaction is open during the computation.
    """
    with context.database.session() as session:
        policy = resolve_policy(request.policy, session)
        _, longest = latest_finish_hours(policy, request.work_hours, request.deadline_hours)
        window_hours = max(longest, request.work_hours)  # of readings that one run needs from its start on
        past = load_history(request, context, session, window_hours=window_hours, now=now)
    _check_effort(request, policy, past, window_hours)
    if not _simulation_slots.acquire(blocking=False):
        raise unavailable(
            f"{MAX_CONCURRENT_SIMULATIONS} simulations are running, the most at once: try again in a moment"
        )
    try:
        result = backtest(
            policy,
            past,
            start=request.start,
            work_hours=request.work_hours,
            epochs=request.epochs,
            deadline_hours=request.deadline_hours,
            forecast=request.forecast,
            power_w=request.power_w,
            idle_power_w=request.idle_power_w,
        )
    except BacktestError as error:
        raise _backtest_problem(error, request, past, window_hours) from error
    finally:
        _simulation_slots.release()
    return SimulationOut.of(
        result,
        past,
        policy=policy,
        zone=request.zone,
        forecast=request.forecast,
        deadline_hours=request.deadline_hours,
        power_w=request.power_w,
        idle_power_w=request.idle_power_w,
    )


def _check_effort(request: SimulationRequest, policy: Policy, past: IntensitySeries, window_hours: float) -> None:
    slots = Slots.from_series(past)
    start, end = series_span(past)
    hours = (end - start).total_seconds() / 3600
    starts = 1.0 if request.start is not None else max(1.0, hours - window_hours)
    planning = window_hours if policy.gate.mode != "none" else EFFORT_WITHOUT_GATE
    effort = starts * window_hours / slots.step_hours * planning
    if isinstance(policy, Budget):
        effort += starts * request.epochs**2 * BUDGET_EFFORT
    if effort > MAX_EFFORT:
        window = f"up to {window_hours:,.4g} h in slots of {slots.step_hours * 60:g} minutes"
        raise invalid_field(
            "start" if request.start is None else "deadline_hours" if request.deadline_hours else "work_hours",
            f"{starts:,.0f} start(s) of {window} are {effort / MAX_EFFORT:.1f} times what one request may ask for: "
            "give one start, fewer or coarser readings, or less time; `greentune policy simulate` has no bound",
        )


def _backtest_problem(
    error: BacktestError, request: SimulationRequest, past: IntensitySeries, window_hours: float
) -> Problem:
    if error.field != "series":
        return invalid_field(error.field, error.message)
    start, end = series_span(past)
    there = (end - start).total_seconds() / 3600
    return invalid_field(
        "zone" if request.series is None else "series",
        f"there are readings of {there:,.4g} h, from {start.isoformat()} to {end.isoformat()}: "
        f"expected at least {window_hours:,.4g} h, the window of one run",
    )
