"""`/policies`: named and versioned."""

from http import HTTPStatus

from fastapi import APIRouter, Response

from api.context import NowDep, SessionDep
from api.listing import Listing, whole
from api.policies.parsing import read_policy
from api.policies.schemas import NewPolicy, PolicyOut
from api.problems import Problem, declared
from store.policies import PolicyRepository

router = APIRouter(prefix="/policies", tags=["policies"])


@router.post("", status_code=HTTPStatus.CREATED, summary="Store the next version of a policy")
def create_policy(new: NewPolicy, response: Response, session: SessionDep, now: NowDep) -> PolicyOut:
    """Jobs that run already keep the version that they were submitted with."""
    policy = PolicyRepository(session).add_version(new.name, read_policy(new.policy).body(), at=now)
    response.headers["Location"] = f"/policies/{policy.name}"
    return PolicyOut.of(policy)


@router.get("", summary="The newest version of every policy, by name")
def list_policies(session: SessionDep) -> Listing[PolicyOut]:
    """The whole list at once: operators write policies by hand, so it is short."""
    return whole([PolicyOut.of(policy) for policy in PolicyRepository(session).all_latest()])


@router.get("/{name}", summary="The newest version of a policy", responses=declared(HTTPStatus.NOT_FOUND))
def get_policy(name: str, session: SessionDep) -> PolicyOut:
    """As it would apply to a job that is submitted now."""
    policy = PolicyRepository(session).latest(name)
    if policy is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no policy named {name!r}")
    return PolicyOut.of(policy)
