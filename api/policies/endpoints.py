"""`/policies`: named, versioned policies, written by operators and shared by all; and their simulation."""

from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.access.principal import OperatorDep, PrincipalDep
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.idempotency import IdempotentRequestDep, created_responses
from api.http.pagination import Id, Limit, Listing, to_listing
from api.http.problems import Problem, problem_responses
from api.policies.preconditions import ETAG, PreconditionDep, policy_etag
from api.policies.schemas import NewPolicy, NextPolicy, PolicyName, PolicyOut, parse_request_policy
from api.policies.simulated import SimulationOut
from api.policies.simulation import run_simulation
from api.policies.simulation_request import SimulationRequest
from store.repositories.policies import PolicyRepository

router = APIRouter(prefix="/policies", tags=["policies"])
# The 409 is for concurrent writes of one version.
WRITE_REFUSALS = problem_responses(HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    summary="Create the next version of a policy (operators)",
    responses=WRITE_REFUSALS | created_responses(PolicyOut, ETAG),
)
def create_policy(
    new: NewPolicy, idempotent_request: IdempotentRequestDep, operator: OperatorDep, session: SessionDep, now: NowDep
) -> Response:
    """Jobs keep the version that they were submitted with."""
    if (first := idempotent_request.stored_response()) is not None:
        return first
    policy = PolicyRepository(session).add_version(new.name, parse_request_policy(new.policy).to_json(), at=now)
    headers = {"Location": f"/policies/{policy.name}", "ETag": policy_etag(policy.version)}
    return idempotent_request.respond(PolicyOut.of(policy), status=HTTPStatus.CREATED, headers=headers)


@router.get("", summary="List the newest version of every policy, by name")
def list_policies(
    principal: PrincipalDep,
    session: SessionDep,
    limit: Limit = 200,
    after: Annotated[Id | None, Query(description="Only policies whose names follow this one")] = None,
) -> Listing[PolicyOut]:
    """In ascending order of names."""
    return to_listing(PolicyRepository(session).page(limit=limit, after=after), PolicyOut.of)


@router.post(
    "/simulate",
    summary="Simulate a policy on past carbon intensities",
    responses=problem_responses(HTTPStatus.SERVICE_UNAVAILABLE),
)
def simulate_policy(
    request: SimulationRequest, principal: PrincipalDep, context: AppContextDep, now: NowDep
) -> SimulationOut:
    """A backtest on the stored readings of a zone or on uploaded ones, from one start or from every full hour.

    All figures are estimates; `basis` lists data and assumptions. Nothing is stored.
    """
    return run_simulation(request, context, now=now)


@router.get(
    "/{name}",
    summary="Get the newest version of a policy",
    responses={HTTPStatus.OK.value: {"headers": ETAG}, **problem_responses(HTTPStatus.NOT_FOUND)},
)
def get_policy(name: Id, response: Response, principal: PrincipalDep, session: SessionDep) -> PolicyOut:
    """The version that would apply to a job submitted now."""
    policy = PolicyRepository(session).latest(name)
    if policy is None:
        raise _not_found(name)
    response.headers["ETag"] = policy_etag(policy.version)
    return PolicyOut.of(policy)


@router.put(
    "/{name}",
    summary="Create or replace a policy by its next version (operators)",
    responses={
        HTTPStatus.OK.value: {"headers": ETAG},
        HTTPStatus.CREATED.value: {"model": PolicyOut, "description": "First version of a new policy", "headers": ETAG},
        **WRITE_REFUSALS,
        **problem_responses(HTTPStatus.PRECONDITION_FAILED),
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
    """Stores the first version if there is none yet. Jobs keep the version that they were submitted with."""
    body = parse_request_policy(new.policy).to_json()
    policy = PolicyRepository(session).add_version(name, body, at=now, check=partial(precondition.check, name))
    response.headers["ETag"] = policy_etag(policy.version)
    if policy.version == 1:
        response.status_code = HTTPStatus.CREATED
        response.headers["Location"] = f"/policies/{name}"
    return PolicyOut.of(policy)


@router.delete(
    "/{name}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Delete every version of a policy (operators)",
    responses=problem_responses(HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN),
)
def delete_policy(name: Id, operator: OperatorDep, session: SessionDep) -> None:
    """Jobs, including those that still wait, keep the policy that they were submitted with."""
    if not PolicyRepository(session).delete(name):
        raise _not_found(name)


def _not_found(name: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"there is no policy named {name!r}")
