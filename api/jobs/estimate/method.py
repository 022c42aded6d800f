"""Chooses the method of a submission that leaves it open, as preparation does, from measured models and tokens."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from greencore.policy import parse_stored_policy
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.method_choice import ChosenMethod, MethodChoice
from greencore.settings.method_settings import LoraSettings
from planning.compute_costs import EpochWorkload, estimate_workload, find_row_costs
from planning.method_budget import choose_job_method, expect_rho
from runtime.settings import Settings
from store.repositories.jobs import NewJob
from store.tables import Dataset


def choose_submitted_method(
    session: Session, settings: Settings, new: NewJob, *, at: datetime
) -> tuple[NewJob, MethodChoice]:
    """Return the submission with the method and hyperparameters that its preparation is expected to choose.

    Preparation decides by the job's own tokens and by what the model supports. Raises `WorkloadUnknown`.
    """
    dataset, policy = session.get_one(Dataset, new.dataset_id), parse_stored_policy(new.policy)
    given = Hyperparameters.model_validate(new.hyperparameters_asked or {})

    def estimate(method: str, changes: Mapping[str, object]) -> EpochWorkload:
        return estimate_workload(session, dataset, new.model, method, given.model_copy(update=changes))

    def measure_share(method: ChosenMethod, lora: LoraSettings | None) -> float:
        return estimate(method, {"lora": lora}).share

    expected = expect_rho(session, settings, policy, zone=new.zone, at=at)
    costs, length = find_row_costs(session, new.model), estimate(new.method, {}).length
    width = None if costs is None else costs.width
    choice = choose_job_method(expected, policy, given, length, measure_share, width=width)
    changed = choice.hyperparameters.model_dump(mode="json")
    return replace(new, method=choice.method, hyperparameters=changed), choice
