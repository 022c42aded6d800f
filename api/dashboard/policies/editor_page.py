"""`/dashboard/policies`: the list, and a page for each policy, with the editor for operators."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.access.principal import OperatorDep
from api.dashboard.page import Page, PageDep
from api.dashboard.policies import policy_curve
from api.dashboard.policies.policy_form import EXAMPLES, policy_form, run_fields
from api.dashboard.policies.policy_summary import summarise_policy
from api.http.problems import Problem
from api.policies.schemas import PolicyOut
from greencore.policy import parse_stored_policy
from store.intensity.readings import GridRepository
from store.repositories.policies import PolicyRepository
from store.tables import Policy

# Initial values of the simulated run's fields.
RUN_VALUES = {"work_hours": 8, "epochs": 8, "deadline_hours": 24, "power_w": 300, "forecast": "own"}
MAX_SHOWN = 500
# Days of stored readings that a backtest covers: 90 take 0.1 to 0.5 s.
HISTORY_DAYS = (7, 30, 90, 365)
DEFAULT_HISTORY_DAYS = 90
FORM = policy_form()
RUN_FIELDS = run_fields()

router = APIRouter()
router.include_router(policy_curve.router)


@router.get("/dashboard/policies")
def policies_page(page: PageDep) -> HTMLResponse:
    """Render the newest version of each policy, by name."""
    stored = PolicyRepository(page.session).page(limit=MAX_SHOWN).data
    page.check_etag([(policy.name, policy.version, policy.created_at.isoformat()) for policy in stored])
    return page.render("policies.html", title="Policies", here="policies", policies=[_row(policy) for policy in stored])


@router.get("/dashboard/new-policy")
def new_policy_page(operator: OperatorDep, page: PageDep) -> HTMLResponse:
    """Render the editor with an example policy."""
    return _editor(page, "New policy", stored=None)


@router.get("/dashboard/policies/{name}")
def policy_page(name: str, page: PageDep) -> HTMLResponse:
    """Render a policy: in the editor for operators, as text for users."""
    stored = PolicyRepository(page.session).latest(name)
    if stored is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no policy named {name!r}")
    return _editor(page, name, stored=PolicyOut.of(stored))


def _editor(page: Page, title: str, *, stored: PolicyOut | None) -> HTMLResponse:
    body = EXAMPLES["linear"] if stored is None else _in_order(stored.policy)
    grid = GridRepository(page.session)
    return page.render(
        "policy.html",
        title=title,
        here="policies",
        stored=stored,
        body=body,
        summary=summarise_policy(parse_stored_policy(body)),
        form=FORM,
        examples=EXAMPLES,
        run_fields=RUN_FIELDS,
        run_values=RUN_VALUES,
        zones=[zone for zone in sorted(page.context.settings.zones) if grid.newest_basis(zone) is not None],
        history_days=HISTORY_DAYS,
        default_history_days=DEFAULT_HISTORY_DAYS,
    )


def _in_order(body: Mapping[str, Any]) -> dict[str, Any]:
    """Order the keys, which the database does not keep: kind, fields of the kind, fields of all kinds."""
    last = ("gate", "smoothing", "on_missing")
    own = [key for key in body if key != "kind" and key not in last]
    return {key: body[key] for key in ("kind", *own, *last) if key in body}


def _row(stored: Policy) -> dict[str, Any]:
    policy = parse_stored_policy(stored.body)
    return {
        "name": stored.name,
        "version": stored.version,
        "kind": policy.model_dump()["kind"],
        **summarise_policy(policy),
        "since": stored.created_at,
    }
