"""Estimates the FLOPs of a job's epochs without torch, from measured models and counted tokens."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from greencore.cost_polynomial import SOURCE_AND_TARGET, TOKENS, TOKENS_AND_LOGITS, evaluate_cost
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.layout_choice import LayoutName, resolve_layout
from greencore.settings.method_settings import LoraSettings
from greencore.settings.run_length import RunLength, compute_run_length
from greencore.settings.value_types import LogitPositions
from store.repositories.jobs import whole_epochs
from store.tables import Dataset, Job, Json, Model, TokenStatistics

PAD_TO_MULTIPLE = 8
POINTS_PER_BUCKET = 4
ASSUMED_COMPLETION_SHARE = 0.5  # of a row whose tokens are not counted; an encoder reads the rest
# English text in the vocabularies of the catalogue's models; other languages and code take more tokens.
CHARACTERS_PER_TOKEN = 4.0
# The rest is JSON syntax; used where only the file's size is known.
TEXT_SHARE_OF_BYTES = 0.8

SPREAD_OF_SHUFFLES = 1.02  # the rows of a batch, and so its padding, differ from epoch to epoch
SPREAD_OF_OTHER_BATCHES = 1.15
SPREAD_OF_COUNTED_TOKENS = 1.15
SPREAD_OF_CHARACTERS = 1.4
SPREAD_OF_BYTES = 1.6

# Hyperparameters that determine a run's rows, the layout of its batches, and these: jobs that agree compute the same.
ROW_PARAMETERS = ("max_length", "prompt_format", "train_on", "eval_share")
LAYOUT_PARAMETERS = ("packing", "group_by_length", "gradient_checkpointing", "logits")
BATCH_PARAMETERS = ("batch_size", "micro_batch_size", "seed")


@dataclass(frozen=True)
class RowCosts:
    """FLOPs of one row of a training step as a polynomial of its lengths; a multiply-accumulate counts as 2.

    `forward` and `full` (every tensor trained) are coefficients of (L, K, L²) for rows of L tokens with logits at K
    positions, of (L, L²) where a model always computes all, or of (S, T, S², T², S·T) where an encoder reads S tokens
    and a decoder writes T. `methods` has the share of `full` that each other method takes, or the reason why the model
    does not support it. `width` is that of the hidden states, None where it is unknown. `logits` is None in
    measurements of earlier versions.
    """

    forward: tuple[float, ...]
    full: tuple[float, ...]
    methods: Mapping[str, float | str]
    logits: LogitPositions | None = None
    width: int | None = None

    @classmethod
    def from_json(cls, stored: Json) -> "RowCosts":
        """Parse `models.costs`."""
        return cls(
            tuple(stored["forward"]),
            tuple(stored["full"]),
            stored.get("methods", {}),
            stored.get("logits"),
            stored.get("width"),
        )

    def to_json(self) -> Json:
        """Return the value of `models.costs`."""
        return {
            "forward": list(self.forward),
            "full": list(self.full),
            "methods": dict(self.methods),
            "logits": self.logits,
            "width": self.width,
        }

    @property
    def has_encoder(self) -> bool:
        """Whether the model has an encoder and a decoder."""
        return len(self.full) == len(SOURCE_AND_TARGET)

    def full_flops(self, *lengths: float) -> float:
        """FLOPs of a row of (L,), (L, K) or (S, T) padded tokens with every tensor trained."""
        return evaluate_cost(self.full, lengths)

    def forward_flops(self, *lengths: float) -> float:
        """FLOPs of the forward pass of a row of (L,), (L, K) or (S, T) padded tokens."""
        return evaluate_cost(self.forward, lengths)


@dataclass(frozen=True)
class EpochWorkload:
    """FLOPs of one epoch with every tensor trained, expected within a factor of `spread` either way.

    `length` is that of the whole run. The job's method takes `share` of the FLOPs (1 for GreenTrainer, whose ρ is
    applied besides). `exact`: a job with the same rows and batches was prepared. `basis` describes the source of the
    figures. A conversation may be tokenised to several examples. `held_out_rows` are a share of the dataset's, without
    those of a validation dataset, and `dropped_rows` those of the dataset of which nothing is learned; None where no
    row was tokenised yet.
    """

    epoch_flops: float
    epoch_tokens: float
    training_rows: int
    training_examples: int
    held_out_rows: int
    dropped_rows: int | None
    length: RunLength
    share: float
    spread: float
    exact: bool
    basis: str


class WorkloadUnknown(ValueError):
    """A job's FLOPs cannot be estimated; the message gives the reason, and when they can be."""


def find_row_costs(session: Session, model: str) -> RowCosts | None:
    """Return the measured costs of a model of the catalogue; None where it is not measured yet."""
    stored = session.get(Model, model)
    return RowCosts.from_json(stored.costs) if stored is not None and stored.costs else None


def estimate_workload(
    session: Session, dataset: Dataset, model: str, method: str, hyperparameters: Hyperparameters
) -> EpochWorkload:
    """Estimate the FLOPs of an epoch of a job that does not exist yet, from the best source.

    That is a prepared job with the same model and rows, else the dataset's tokens counted for this model, and else its
    characters, both with the model's measured costs. Raises `WorkloadUnknown` where the model is not measured yet.
    """
    costs = find_row_costs(session, model)
    share, share_basis = _share(session, model, method, hyperparameters, costs)
    prepared = _find_prepared_estimate(session, dataset, model, hyperparameters)
    if prepared is not None:
        estimate, alike = prepared
        examples = estimate.get("training_examples") or estimate["training_rows"]
        held_out = _count_held_out_rows(dataset.rows, hyperparameters.eval_share)
        if held_out:  # else its own may be those of a validation dataset
            held_out = estimate.get("held_out_rows", held_out)
        return EpochWorkload(
            epoch_flops=estimate["full_flops"] / estimate["whole_epochs"],
            epoch_tokens=estimate["tokens_per_epoch"],
            training_rows=estimate["training_rows"],
            training_examples=examples,
            held_out_rows=held_out,
            length=compute_run_length(hyperparameters, training_rows=examples),
            dropped_rows=estimate.get("dropped_rows", 0),
            share=share,
            spread=SPREAD_OF_SHUFFLES if alike else SPREAD_OF_OTHER_BATCHES,
            exact=alike,
            basis="a job with the same model and rows that was prepared"
            + ("" if alike else ", in other batches")
            + share_basis,
        )
    if costs is None:
        raise WorkloadUnknown(
            f"the FLOPs of {model} are not measured yet: a prepare worker does so once it has started"
        )
    statistics = find_token_counts(session, dataset, model, hyperparameters)
    counted = None if statistics is None else statistics.counts
    alike = statistics is not None and statistics.train_on == hyperparameters.train_on
    dropped = counted.get("dropped_rows", 0) if counted and alike else None
    known = max(dataset.rows - (dropped or 0), 1)
    held_out = _count_held_out_rows(known, hyperparameters.eval_share)
    rows = known - held_out
    examples = rows
    if counted and alike and "examples" in counted:
        examples = max(round(rows * counted["examples"] / counted["rows"]), 1)
    lengths, spread, basis = _lengths(counted, dataset, model, hyperparameters.max_length)
    batch = min(hyperparameters.rows_at_once, examples)
    return EpochWorkload(
        epoch_flops=examples * lengths.flops(costs, batch, hyperparameters),
        epoch_tokens=examples * lengths.mean,
        training_rows=rows,
        training_examples=examples,
        held_out_rows=held_out,
        dropped_rows=dropped,
        length=compute_run_length(hyperparameters, training_rows=examples),
        share=share,
        spread=spread,
        exact=False,
        basis=basis + share_basis,
    )


def _share(
    session: Session, model: str, method: str, hyperparameters: Hyperparameters, costs: RowCosts | None
) -> tuple[float, str]:
    if method in ("greentrainer", "full"):
        return 1.0, ""
    if hyperparameters.lora is not None:
        known = _find_prepared_lora_share(session, model, hyperparameters.lora)
        if known is not None:
            return known, f"; lora with these settings takes {known:.3g} of full fine-tuning's FLOPs"
    share = None if costs is None else costs.methods.get(method)
    if isinstance(share, int | float):
        return float(share), f"; {method} takes {share:.3g} of full fine-tuning's FLOPs"
    return 1.0, f"; what {method} takes is not measured, and all of full fine-tuning's FLOPs are assumed"


def _find_prepared_lora_share(session: Session, model: str, settings: LoraSettings) -> float | None:
    """Return the share of full fine-tuning's FLOPs of the newest prepared job with these settings of LoRA."""
    query = (
        select(Job.hyperparameters, Job.estimate)
        .where(Job.model == model, Job.method == "lora", Job.estimate.is_not(None))
        .order_by(Job.id.desc())
        .limit(20)
    )
    for stored, estimate in session.execute(query):
        assert estimate is not None
        given = Hyperparameters.model_validate(stored).lora or LoraSettings()
        if (given.rank, given.targets) == (settings.rank, settings.targets) and estimate.get("method_flops"):
            share: float = estimate["method_flops"] / estimate["full_flops"]
            return share
    return None


def _find_prepared_estimate(
    session: Session, dataset: Dataset, model: str, hyperparameters: Hyperparameters
) -> tuple[dict[str, Any], bool] | None:
    """Return the estimate of the newest job with the same rows of this dataset, and whether its batches are equal."""
    wanted = hyperparameters.model_dump(mode="json")
    same_data = select(Dataset.id).where(Dataset.blob == dataset.blob)
    query = (
        select(Job)
        .where(Job.dataset_id.in_(same_data), Job.model == model, Job.estimate.is_not(None))
        .order_by(Job.id.desc())
        .limit(20)
    )
    found = None
    for job in session.scalars(query):
        estimate = job.estimate
        assert estimate is not None
        given = Hyperparameters.model_validate(job.hyperparameters).model_dump(mode="json")
        if (
            any(given[name] != wanted[name] for name in (*ROW_PARAMETERS, *LAYOUT_PARAMETERS))
            or "training_rows" not in estimate
            or "logits" not in estimate  # of an earlier version, which computed all of them
        ):
            continue
        known = {**estimate, "whole_epochs": whole_epochs(job)}
        if all(given[name] == wanted[name] for name in BATCH_PARAMETERS):
            return known, True
        found = found or (known, False)
    return found


@dataclass(frozen=True)
class _LengthDistribution:
    """Distribution of row lengths as (tokens, weight), shortest first; `learned` is the completions' share."""

    points: Sequence[tuple[float, float]]
    learned: float

    @property
    def mean(self) -> float:
        return sum(tokens * weight for tokens, weight in self.points) / sum(weight for _, weight in self.points)

    def flops(self, costs: RowCosts, batch: int, settings: Hyperparameters) -> float:
        """Mean FLOPs of a row in a random batch of `batch` rows, all padded to the longest of them.

        A packed row attends to its whole batch; rows grouped by length have no padding. Recomputation under `auto` is
        taken as off.
        """
        recomputed = costs.forward if settings.gradient_checkpointing is True else [0.0] * len(costs.forward)
        terms = [full + forward for full, forward in zip(costs.full, recomputed, strict=True)]
        if len(terms) == len(TOKENS_AND_LOGITS) and settings.logits == "all":
            tokens, logits, squared = terms
            terms = [tokens + logits, squared]

        @cache
        def predict(layout: LayoutName) -> float:
            if layout == "packed" and not costs.has_encoder:
                return self._padded_flops(terms, 1) + terms[-1] * self.mean**2 * (batch - 1)
            return self._padded_flops(terms, 1 if layout == "grouped" else batch)

        return predict(resolve_layout(settings, predict, packs=lambda: not costs.has_encoder))

    def _padded_flops(self, terms: Sequence[float], batch: int) -> float:
        total, below, flops = sum(weight for _, weight in self.points), 0.0, 0.0
        for tokens, weight in self.points:
            up_to = min(below + weight / total, 1.0)
            learned = tokens * self.learned
            parts = {
                len(TOKENS): (tokens,),
                len(TOKENS_AND_LOGITS): (tokens, learned),
                len(SOURCE_AND_TARGET): (tokens - learned, learned),
            }[len(terms)]
            padded = [math.ceil(part / PAD_TO_MULTIPLE) * PAD_TO_MULTIPLE for part in parts]
            flops += (up_to**batch - below**batch) * evaluate_cost(terms, padded)
            below = up_to
        return flops


def find_token_counts(
    session: Session, dataset: Dataset, model: str, hyperparameters: Hyperparameters
) -> TokenStatistics | None:
    """Return the token counts of the dataset for the model, best of the same turns and prompt format."""
    query = (
        select(TokenStatistics)
        .where(
            TokenStatistics.dataset_id == dataset.id,
            TokenStatistics.model == model,
            TokenStatistics.counts.is_not(None),
        )
        .order_by(
            TokenStatistics.train_on != hyperparameters.train_on,
            TokenStatistics.prompt_format != hyperparameters.prompt_format,
            TokenStatistics.train_on,
            TokenStatistics.prompt_format,
        )
    )
    return session.scalars(query.limit(1)).first()


def _lengths(
    counts: Json | None, dataset: Dataset, model: str, max_length: int
) -> tuple[_LengthDistribution, float, str]:
    """Return the truncated row lengths of a dataset, the spread of FLOPs computed from them, and the basis."""
    if counts:
        basis = f"the dataset's tokens as counted for {model}"
        return _lengths_from_histogram(counts, max_length), SPREAD_OF_COUNTED_TOKENS, basis
    total = ((dataset.contents or {}).get("characters") or {}).get("total")
    spread, basis = SPREAD_OF_CHARACTERS, f"the dataset's characters, {CHARACTERS_PER_TOKEN:g} to a token"
    if total is None:
        total, spread = dataset.bytes * TEXT_SHARE_OF_BYTES, SPREAD_OF_BYTES
        basis = f"the dataset's size, {TEXT_SHARE_OF_BYTES:.0%} of it text, {CHARACTERS_PER_TOKEN:g} characters a token"
    mean = total / CHARACTERS_PER_TOKEN / dataset.rows
    return _LengthDistribution([(min(mean, max_length), 1.0)], ASSUMED_COMPLETION_SHARE), spread, basis


def _lengths_from_histogram(counts: Json, max_length: int) -> _LengthDistribution:
    """Lengths from a histogram with powers of two as bounds: uniform within each, scaled to the counted total."""
    total, most = counts["tokens"]["total"], counts["tokens"]["max"]
    points = [
        (bucket["up_to"] * (0.5 + (part + 0.5) / (2 * POINTS_PER_BUCKET)), bucket["rows"] / POINTS_PER_BUCKET)
        for bucket in counts["histogram"]
        for part in range(POINTS_PER_BUCKET)
        if bucket["rows"]
    ]
    scale = total / sum(tokens * rows for tokens, rows in points)
    cut = [(min(tokens * scale, most, max_length), rows) for tokens, rows in points]
    return _LengthDistribution(cut, counts["completion"]["total"] / total)


def _count_held_out_rows(rows: int, eval_share: float) -> int:
    """Count the rows that `greencore.training.data.held_out_rows.split_rows` holds out of rows without equal ones."""
    held_out = min(round(rows * eval_share), rows - 1)
    return 1 if eval_share > 0 and held_out == 0 and rows > 1 else held_out
