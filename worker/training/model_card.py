"""The model card of a result: model, dataset, training, energy and emissions, and how they were measured."""

import json
import platform
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy.orm import Session

from greencore.carbon.accounting.pricing import known_emissions
from greencore.energy import is_estimate
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.recipe_text import describe_recipe
from greencore.training.models.delta import DELTA_FILE_NAME
from runtime.catalogue import CatalogueEntry
from store.accounting.emissions import EmissionsRepository
from store.repositories.jobs import EmissionsBasis, EpochCost, JobRepository
from store.repositories.lineage import LineageRepository
from store.tables import Dataset, Job

FILE_NAME = "README.md"
EVALUATIONS_SHOWN = 100
SUMMED_FLOPS = ("flops", "full_flops", "plain_full_flops", "probe_flops")
LIBRARIES = ("torch", "transformers", "peft", "safetensors", "codecarbon")
EMPTY_CELL = "–"


def write_model_card(
    session: Session,
    job: Job,
    folder: Path,
    *,
    entry: CatalogueEntry | None,
    evaluation: Mapping[str, Any],
    stopped_early: str | None = None,
    at: datetime,
) -> None:
    """Write the card of a job whose meter is closed into the folder of its result."""
    jobs = JobRepository(session)
    epochs, costs = jobs.epochs(job.id), jobs.epoch_costs(job.id)
    basis = jobs.emissions_basis([job.id]).get(job.id) or EmissionsBasis(0.0, False, (), {})
    settlement = EmissionsRepository(session).get_settlement_by_job([job.id]).get(job.id, {})
    known_gco2e = known_emissions(job.emissions_gco2e, energy_kwh=job.energy_kwh, unpriced_kwh=basis.unpriced_kwh)
    evaluations = jobs.newest_evaluations(job.id, limit=EVALUATIONS_SHOWN)
    files = {path.name for path in folder.iterdir()}
    lineage = [_describe_base(session, base) for base in reversed(LineageRepository(session).list_bases(job))]
    card = _template.render(
        front_matter=_front_matter(job, entry, basis, known_gco2e, is_adapter="adapter_config.json" in files),
        job=job,
        base_name=job.base_job_id or job.model,
        lineage=lineage,
        lineage_kwh=job.energy_kwh + sum(base.energy_kwh for base in lineage),
        lineage_gco2e=sum(base.known_gco2e or 0.0 for base in lineage) + (known_gco2e or 0.0),
        lineage_unpriced_kwh=basis.unpriced_kwh + sum(base.unpriced_kwh for base in lineage),
        licence=entry.licence if entry else "unknown",
        dataset=session.get_one(Dataset, job.dataset_id),
        validation=job.validation_dataset_id and session.get_one(Dataset, job.validation_dataset_id),
        files=files,
        delta_file=DELTA_FILE_NAME,
        recipe=_describe_recipe(job),
        hyperparameters=list(_flatten(job.hyperparameters)),
        policy_json=json.dumps(job.policy, ensure_ascii=False),
        epochs=epochs,
        **{key: sum(getattr(epoch, key) or 0.0 for epoch in epochs) for key in SUMMED_FLOPS},
        evaluation=evaluation,
        evaluations=list(reversed(evaluations.data)),
        more_evaluations=evaluations.has_more,
        stopped_early=stopped_early,
        costs=costs,
        components=list(_components(costs, basis)),
        basis=basis,
        known_gco2e=known_gco2e,
        pue=settlement.get("pue", 1.0),
        settled_gco2e=settlement.get("settled_gco2e", 0.0),
        at=at,
        versions={
            "greentune": version("greentune"),
            "Python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    )
    (folder / FILE_NAME).write_text(card, encoding="utf-8")


@dataclass(frozen=True)
class LineageEntry:
    """One of the jobs behind a job: what it trained, and its metered energy and emissions (None: all unpriced)."""

    job_id: str
    method: str
    dataset: str
    energy_kwh: float
    known_gco2e: float | None
    unpriced_kwh: float


def _describe_base(session: Session, base: Job) -> LineageEntry:
    basis = JobRepository(session).emissions_basis([base.id]).get(base.id)
    unpriced = basis.unpriced_kwh if basis else 0.0
    known = known_emissions(base.emissions_gco2e, energy_kwh=base.energy_kwh, unpriced_kwh=unpriced)
    dataset = session.get_one(Dataset, base.dataset_id).name
    return LineageEntry(base.id, base.method, dataset, base.energy_kwh, known, unpriced)


def _describe_recipe(job: Job) -> str:
    known = {name: value for name, value in job.hyperparameters.items() if name in Hyperparameters.model_fields}
    rows = f"; in the end {job.micro_batch_size} rows at once" if job.micro_batch_size else ""
    return describe_recipe(Hyperparameters.model_validate(known)) + rows


def _front_matter(
    job: Job, entry: CatalogueEntry | None, basis: EmissionsBasis, known_gco2e: float | None, *, is_adapter: bool
) -> str:
    """Return the YAML that the Hugging Face hub reads."""
    licence = to_one_line(entry.licence if entry else "unknown")
    is_identifier = re.fullmatch(r"[A-Za-z0-9.-]+", licence) is not None
    # A model of the hub has its name there, any other that of the catalogue.
    source = entry.source if entry else ""
    name = source.removeprefix("hub:").partition("@")[0] if source.startswith("hub:") else job.model
    unpriced = f"; {basis.unpriced_kwh:.4g} of {job.energy_kwh:.4g} kWh have no price" if basis.unpriced_kwh else ""
    data = ModelCardData(
        model_name=None if job.name is None else to_one_line(job.name),
        base_model=to_one_line(name),
        base_model_relation="adapter" if is_adapter else "finetune",
        library_name="peft" if is_adapter else "transformers",
        tags=["greentune", job.method],
        co2_eq_emissions={
            **({} if known_gco2e is None else {"emissions": known_gco2e}),  # in grams
            "source": f"GreenTune: energy metered with CodeCarbon, priced interval by interval{unpriced}",
            "training_type": "fine-tuning",
            "geographical_location": to_one_line(job.zone or "unknown"),
            "hardware_used": to_one_line((f"{job.gpus} x " if job.gpus > 1 else "") + (job.device or "unknown")),
        },
        license=licence.lower() if is_identifier else "other",
        license_name=None if is_identifier else licence,
    )
    return data.to_yaml().strip()


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings by name, those of a nested object as `object.name`, and lists as text."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else value


def _components(
    costs: Mapping[int, EpochCost], basis: EmissionsBasis
) -> Iterator[tuple[str, float, Sequence[str], Sequence[str]]]:
    """Yield title, energy in kWh, methods and their kinds of each component."""
    for key, title in (("cpu", "processor"), ("gpu", "GPU"), ("ram", "memory")):
        methods = basis.methods.get(key, ())
        kinds = {"estimate" if is_estimate(method) else "meter" for method in methods if method != "none"}
        yield title, sum(getattr(cost, f"{key}_kwh") for cost in costs.values()), methods, sorted(kinds)


def code_span(text: object) -> str:
    """Return a text as a Markdown code span on one line, safe in a table cell; nothing in it is markup.

    Invisible characters (control, line separator, text direction) become spaces.
    """
    line = to_one_line(text)
    if not line:
        return EMPTY_CELL
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    padding = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{padding}{line}{padding}{fence}".replace("|", "\\|")


def to_one_line(text: object) -> str:
    """Return the text with runs of invisible characters and whitespace replaced by one space."""
    visible = "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in str(text))
    return " ".join(visible.split())


def _format_value(value: object) -> object:
    match value:
        case None:
            return EMPTY_CELL
        case float():
            return f"{value:.4g}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
    return value


_markdown = Environment(  # noqa: S701  (no HTML: the filter `code` keeps texts from being markup)
    loader=FileSystemLoader(Path(__file__).parent),
    finalize=_format_value,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_markdown.filters["code"] = code_span
_template = _markdown.get_template("model_card.md.jinja")
