"""`/policies`: named and versioned, written by operators and shared by all."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.access.principal import OperatorDep, PrincipalDep
from api.context import ContextDep, NowDep, SessionDep
from api.idempotency import OnceDep, created
from api.listing import Id, Limit, Listing, listing
from api.policies.parsing import read_policy
from api.policies.preconditions import ETAG, PreconditionDep, version_tag
from api.policies.schemas import NewPolicy, NextPolicy, PolicyName, PolicyOut
from api.policies.simulated import SimulationOut
from api.policies.simulation import simulate
from api.policies.simulation_request import SimulationRequest
from api.problems import Problem, declared
from store.policies import PolicyRepository

router = APIRouter(prefix="/policies", tags=["policies"])

NOT_FOUND = declared(HTTPStatus.NOT_FOUND)
FORBIDDEN = declared(HTTPStatus.FORBIDDEN)
CONFLICT = declared(HTTPStatus.CONFLICT)  # two at once would be the same version
PRECONDITION_FAILED = declared(HTTPStatus.PRECONDITION_FAILED)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Store the next version of a policy (operators)",
    responses={**FORBIDDEN, **CONFLICT, **created(PolicyOut, ETAG)},
)
def create_policy(new: NewPolicy, once: OnceDep, operator: OperatorDep, session: SessionDep, now: NowDep) -> Response:
    """Jobs that run already keep the version that they were submitted with."""
    if (first := once.first_answer()) is not None:
        return first
    policy = PolicyRepository(session).add_version(new.name, read_policy(new.policy).to_json(), at=now)
    headers = {"Location": f"/policies/{policy.name}", "ETag": version_tag(policy.version)}
    return once.answer(PolicyOut.of(policy), status=HTTPStatus.CREATED, headers=headers)


@router.get("", summary="The newest version of every policy, by name")
def list_policies(
    principal: PrincipalDep,
    session: SessionDep,
    limit: Limit = 200,
    after: Annotated[Id | None, Query(description="Only those whose names follow this one")] = None,
) -> Listing[PolicyOut]:
    """In the order of their names, the first one first."""
    return listing(PolicyRepository(session).page(limit=limit, after=after), PolicyOut.of)


@router.post(
    "/simulate",
    summary="What a policy would have emitted on a grid's past",
    responses=declared(HTTPStatus.SERVICE_UNAVAILABLE),
)
def simulate_policy(
    request: SimulationRequest, principal: PrincipalDep, context: ContextDep, now: NowDep
) -> SimulationOut:
    """A backtest on the stored readings of a zone or on uploaded ones, from one start or from every full hour.

    All of it is an estimate; `basis` says what it rests on. Nothing is stored.
    """
    return simulate(request, context, now=now)


@router.get(
    "/{name}",
    summary="The newest version of a policy",
    responses={HTTPStatus.OK.value: {"headers": ETAG}, **NOT_FOUND},
)
def get_policy(name: Id, response: Response, principal: PrincipalDep, session: SessionDep) -> PolicyOut:
    """As it would apply to a job that is submitted now."""
    policy = PolicyRepository(session).latest(name)
    if policy is None:
        raise _not_found(name)
    response.headers["ETag"] = version_tag(policy.version)
    return PolicyOut.of(policy)


@router.put(
    "/{name}",
    summary="Store the next version of the policy of a name (operators)",
    responses={
        HTTPStatus.OK.value: {"headers": ETAG},
        HTTPStatus.CREATED.value: {
            "model": PolicyOut,
            "description": "There was no policy of this name",
            "headers": ETAG,
        },
        **FORBIDDEN,
        **CONFLICT,
        **PRECONDITION_FAILED,
    },
)
def put_policy(
    name: PolicyName,
    new: NextPolicy,
    precondition: PreconditionDep,
    response: Response,
    operator: OperatorDep,
    session: SessionDep,
    now: NowDep,
) -> PolicyOut:
    """The first version where there is none yet. Jobs keep the version that they were submitted with."""
    body = read_policy(new.policy).to_json()
    policy = PolicyRepository(session).add_version(name, body, at=now, check=precondition.check(name))
    response.headers["ETag"] = version_tag(policy.version)
    if policy.version == 1:
        response.status_code = HTTPStatus.CREATED
        response.headers["Location"] = f"/policies/{name}"
    return PolicyOut.of(policy)


@router.delete(
    "/{name}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete every version of a policy (operators)",
    responses=NOT_FOUND | FORBIDDEN,
)
def delete_policy(name: Id, operator: OperatorDep, session: SessionDep) -> None:
    """Jobs keep the policy that they were submitted with, those that still wait included."""
    if not PolicyRepository(session).delete(name):
        raise _not_found(name)


def _not_found(name: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"there is no policy named {name!r}")
