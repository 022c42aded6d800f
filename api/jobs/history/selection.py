"""`/jobs/{id}/selection`: the tensors that each epoch trained, their importance and their cost."""

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.charts import round_to_six_digits
from api.dependencies import SessionDep
from api.http.etags import CACHED_RESPONSES, RevalidationDep
from api.http.pagination import Limit
from api.jobs.endpoints import NOT_FOUND, JobDep
from api.row_model import RowModel
from store.repositories.jobs import JobRepository
from store.tables import Epoch, Tensor

ETAG_VERSION = "t2"  # of the response below, whose form a job's revision does not cover
STACKS = ("encoder", "decoder")
# Added by peft to the names of a model and its adapters.
WRAPPERS = re.compile(r"^(base_model\.model\.)+|\.default(?=\.|$)")

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"], responses=NOT_FOUND)


class TensorOut(BaseModel):
    """A weight tensor that the job may train; its costs are null if they were not stored."""

    name: str
    stack: str | None = Field(description="encoder or decoder, where the model has both")
    layer: int | None = Field(description="Block of its stack, from 0; null outside of the blocks")
    kind: str = Field(description="Role in the block, such as self_attn.q_proj")
    parameters: int | None
    t_dw_flops: int | None = Field(
        description="FLOPs of its own gradient, in one step of the longest rows; 1 multiply-accumulate counts as 2"
    )
    t_dy_flops: int | None = Field(
        description="FLOPs of passing the gradient on to the tensors below it, in the same step"
    )

    @classmethod
    def of(cls, name: str, tensor: Tensor | None) -> "TensorOut":
        """Build from the stored tensor; without one, from its name alone."""
        stack, layer, kind = locate_tensor(name)
        figures = {figure: getattr(tensor, figure, None) for figure in ("parameters", "t_dw_flops", "t_dy_flops")}
        return cls(name=name, stack=stack, layer=layer, kind=kind, **figures)


class EpochSelectionOut(RowModel):
    """Tensors that one epoch trained, as indices into `tensors`."""

    number: int
    rho_asked: float
    rho_reached: float | None
    trained: list[int]
    importance: list[float | None] | None = Field(
        description="Importance of each tensor as last probed, by the metric of the job; null for those that the "
        "budget could not reach, and null as a whole if nothing was probed: at ρ = 1, and for methods with a fixed "
        "selection"
    )


class SelectionOut(BaseModel):
    """The tensors from the model's output to its input, and the epochs newest first."""

    tensors: list[TensorOut]
    data: list[EpochSelectionOut]
    has_more: bool


@router.get("/selection", summary="List the tensors trained in each epoch", responses=CACHED_RESPONSES)
def get_selection(
    job: JobDep,
    session: SessionDep,
    revalidation: RevalidationDep,
    limit: Limit = 50,
    after: Annotated[int | None, Query(ge=0, lt=2**31, description="Only epochs before this number")] = None,
) -> SelectionOut:
    """Finished epochs, newest first, with the importance and the cost of every tensor."""
    jobs = JobRepository(session)
    revalidation.check(f'"{ETAG_VERSION}-{job.revision}-{jobs.newest_event_id(job.id)}-{limit}-{after}"')
    page = jobs.selections(job.id, limit=limit, after=after)
    known = {tensor.name: tensor for tensor in jobs.tensors(job.id)}
    names = list(dict.fromkeys([*known, *(name for epoch in page.data for name in epoch.selection or {})]))
    number = {name: index for index, name in enumerate(names)}
    return SelectionOut(
        tensors=[TensorOut.of(name, known.get(name)) for name in names],
        data=[_epoch(epoch, number) for epoch in page.data],
        has_more=page.has_more,
    )


def _epoch(epoch: Epoch, number: Mapping[str, int]) -> EpochSelectionOut:
    trained = epoch.selection or {}
    importance = epoch.importance
    if importance is None and any(value is not None for value in trained.values()):
        # An epoch stored by an earlier version has the importance of its selected tensors only.
        importance = [trained.get(name) for name in number]
    return EpochSelectionOut.from_row(
        epoch,
        trained=sorted(number[name] for name in trained),
        # Six digits are enough for a ranking; in full they would be most of the response.
        importance=importance and [round_to_six_digits(value) for value in importance],
    )


def locate_tensor(name: str) -> tuple[str | None, int | None, str]:
    """Parse a parameter name of transformers or peft into stack, block and kind.

    The stack is set for an encoder-decoder model; the block is its number within the stack, from 0, and None outside
    the blocks. The kind is the name within a block, the same in all blocks ("self_attn.q_proj.bias"), or the tensor's
    name outside the blocks ("lm_head").
    """
    parts = WRAPPERS.sub("", name).split(".")
    block = next((index for index, part in enumerate(parts) if part.isdecimal()), None)
    outer, inner = (parts, parts) if block is None else (parts[:block], parts[block + 1 :])
    stack = next((part for part in outer if part in STACKS), None)
    # Parts of a block may be numbered too: T5's "layer.1.EncDecAttention.q", and experts.
    named = [part for part in inner if not part.isdecimal() and part not in ("layer", "layers", *STACKS)]
    if named[-1:] == ["weight"]:
        named.pop()
    if block is None and named[:1] in (["model"], ["transformer"]):
        named = named[1:] or named
    return stack, None if block is None else int(parts[block]), ".".join(named) or name
