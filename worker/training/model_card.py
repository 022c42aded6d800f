"""The model card of a result: model, dataset, training, energy and emissions, and how they were measured."""

import json
import platform
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from sqlalchemy.orm import Session

from greencore.carbon.accounting.pricing import known_emissions
from greencore.energy import is_estimate
from greencore.training.models.delta import DELTA_FILE_NAME
from runtime.catalogue import CatalogueEntry
from store.accounting.emissions import EmissionsRepository
from store.repositories.jobs import EmissionsBasis, EpochCost, JobRepository
from store.tables import Dataset, Epoch, Job

FILE_NAME = "README.md"
LIBRARIES = ("torch", "transformers", "peft", "safetensors", "codecarbon")
EMPTY_CELL = "–"


@dataclass(frozen=True)
class ModelCardFacts:
    """The data of a model card: `files` are the result's, `pue` and `settled_gco2e` those of its energy so far."""

    job: Job
    entry: CatalogueEntry | None
    dataset: Dataset
    epochs: Sequence[Epoch]
    costs: Mapping[int, EpochCost]
    basis: EmissionsBasis | None
    pue: float
    settled_gco2e: float
    evaluation: Mapping[str, Any]
    files: frozenset[str]
    at: datetime


def write_model_card(
    session: Session,
    job: Job,
    folder: Path,
    *,
    entry: CatalogueEntry | None,
    evaluation: Mapping[str, Any],
    at: datetime,
) -> None:
    """Write the card of a job whose meter is closed into the folder of its result."""
    jobs = JobRepository(session)
    settlement = EmissionsRepository(session).get_settlement_by_job([job.id]).get(job.id, {})
    facts = ModelCardFacts(
        job=job,
        entry=entry,
        dataset=session.get_one(Dataset, job.dataset_id),
        epochs=jobs.epochs(job.id),
        costs=jobs.epoch_costs(job.id),
        basis=jobs.emissions_basis([job.id]).get(job.id),
        pue=settlement.get("pue", 1.0),
        settled_gco2e=settlement.get("settled_gco2e", 0.0),
        evaluation=evaluation,
        files=frozenset(path.name for path in folder.iterdir()),
        at=at,
    )
    (folder / FILE_NAME).write_text(render_model_card(facts), encoding="utf-8")


def render_model_card(facts: ModelCardFacts) -> str:
    """Return the card as Markdown, with the front matter that the Hugging Face hub reads."""
    sections = [
        f"# {code_span(facts.job.model)}, fine-tuned\n\n{_summary(facts)}",
        f"## How to load it\n\n{_loading(facts)}",
        f"## Training\n\n{_training(facts)}",
        f"## Epochs\n\n{_epochs(facts)}",
        f"## Evaluation\n\n{_evaluation(facts.evaluation)}",
        f"## Energy and emissions\n\n{_energy(facts)}\n\n{_emissions(facts)}",
        f"## Software\n\n{_software()}",
    ]
    return f"---\n{_front_matter(facts)}\n---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(facts: ModelCardFacts) -> str:
    job, adapter, known_gco2e = facts.job, _is_adapter(facts), _known_gco2e(facts)
    licence = to_one_line(facts.entry.licence if facts.entry else "unknown")
    identifier = _license_id(licence)
    data = ModelCardData(
        base_model=_base_model(facts),
        base_model_relation="adapter" if adapter else "finetune",
        library_name="peft" if adapter else "transformers",
        tags=["greentune", job.method],
        co2_eq_emissions={
            **({} if known_gco2e is None else {"emissions": known_gco2e}),  # in grams
            "source": f"GreenTune: energy metered with CodeCarbon, priced interval by interval{_unpriced_note(facts)}",
            "training_type": "fine-tuning",
            "geographical_location": to_one_line(job.zone or "unknown"),
            "hardware_used": to_one_line(job.device or "unknown"),
        },
        license=identifier or "other",
        license_name=None if identifier else licence,
    )
    return data.to_yaml().strip()


def _known_gco2e(facts: ModelCardFacts) -> float | None:
    unpriced_kwh = facts.basis.unpriced_kwh if facts.basis else 0.0
    return known_emissions(facts.job.emissions_gco2e, energy_kwh=facts.job.energy_kwh, unpriced_kwh=unpriced_kwh)


def _unpriced_note(facts: ModelCardFacts) -> str:
    unpriced_kwh = facts.basis.unpriced_kwh if facts.basis else 0.0
    return f"; {unpriced_kwh:.4g} of {facts.job.energy_kwh:.4g} kWh have no price" if unpriced_kwh else ""


def _license_id(licence: str) -> str | None:
    """Return a licence as a hub identifier in lower case; None where it is no identifier."""
    return licence.lower() if re.fullmatch(r"[A-Za-z0-9.-]+", licence) else None


def _base_model(facts: ModelCardFacts) -> str:
    """Return the base model's name on the hub where it comes from there, else in the catalogue."""
    source = facts.entry.source if facts.entry else ""
    return to_one_line(source.removeprefix("hub:").partition("@")[0] if source.startswith("hub:") else facts.job.model)


def _is_adapter(facts: ModelCardFacts) -> bool:
    return "adapter_config.json" in facts.files


def _summary(facts: ModelCardFacts) -> str:
    job, dataset, entry = facts.job, facts.dataset, facts.entry
    rows = [
        ("base model", f"{code_span(job.model)} (licence: {code_span(entry.licence if entry else 'unknown')})"),
        ("dataset", f"{code_span(dataset.name)}, {dataset.rows} rows, SHA-256 {code_span(dataset.sha256)}"),
        ("method", code_span(job.method)),
        ("job", f"{code_span(job.id)}, submitted {_time(job.created_at)}"),
        *(("metadata", f"{code_span(key)}: {code_span(value)}") for key, value in sorted(job.labels.items())),
    ]
    return format_table(("", ""), rows)


def _loading(facts: ModelCardFacts) -> str:
    name = to_one_line(facts.job.model)
    if DELTA_FILE_NAME in facts.files:
        return (
            "This folder holds only the changed tensors. Applied to the base, they give exactly the trained model:\n\n"
            f"    greentune apply-delta --base BASE --delta {DELTA_FILE_NAME} --output FOLDER\n\n"
            f"where BASE is {code_span(name)}: a name in GreenTune's catalogue, or the model's folder."
        )
    if _is_adapter(facts):
        return (
            f"This folder holds a prefix adapter of {code_span(name)}:\n\n"
            "    from pathlib import Path\n"
            "    from greencore.training.methods.adapters import load_adapter, with_adapter\n"
            "    from transformers import GenerationConfig\n\n"
            '    model = with_adapter("prefix", base)  # base: the model as transformers loads it\n'
            '    base.generation_config = GenerationConfig.from_pretrained("FOLDER")  # its end-of-text tokens\n'
            '    load_adapter(model, Path("FOLDER"))'
        )
    return (
        "    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
        '    encoder = AutoConfig.from_pretrained("FOLDER").is_encoder_decoder\n'
        '    model = (AutoModelForSeq2SeqLM if encoder else AutoModelForCausalLM).from_pretrained("FOLDER")\n'
        '    tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    )


def _training(facts: ModelCardFacts) -> str:
    job = facts.job
    settings = {name: value for name, value in job.hyperparameters.items() if name != "sample_prompt"}
    parameters = format_table(
        ("hyperparameter", "value"), ((code_span(name), code_span(value)) for name, value in settings.items())
    )
    policy = code_span(json.dumps(job.policy, ensure_ascii=False))
    named = f" ({code_span(job.policy_name)})" if job.policy_name else ""
    if job.method == "greentrainer":
        steered = f"ρ, the share of full fine-tuning's FLOPs, was set before each epoch by the policy{named} {policy}."
    else:
        steered = f"This method has no ρ: of the policy{named} {policy} only the gate was used."
    return f"{parameters}\n\n{steered}\n\n{_flops(facts)}"


def _flops(facts: ModelCardFacts) -> str:
    spent, full, probes = (
        sum(getattr(epoch, column) or 0.0 for epoch in facts.epochs)
        for column in ("flops", "full_flops", "probe_flops")
    )
    share = f" ({spent / full:.1%} of the {full:.4g} of full fine-tuning on the same batches)" if full else ""
    return (
        f"The optimiser steps took {spent:.4g} FLOPs{share}, and measuring the tensors' importance {probes:.4g} more. "
        "1 multiply-accumulate counts as 2 FLOPs; where a paper counts it as 1, these are twice its figures."
    )


def _epochs(facts: ModelCardFacts) -> str:
    header = (
        "epoch", "ρ asked", "ρ reached", "intensity, gCO2e/kWh", "source", "FLOPs", "tensors", "loss", "held-out loss",
        "kWh", "gCO2e",
    )  # fmt: skip
    return format_table(header, [_epoch(epoch, facts.costs.get(epoch.number)) for epoch in facts.epochs])


def _epoch(epoch: Epoch, cost: EpochCost | None) -> list[str]:
    about = [epoch.intensity_source, epoch.intensity_step, "estimated" if epoch.intensity_estimated else None]
    return [
        str(epoch.number),
        _number(epoch.rho_asked),
        _number(epoch.rho_reached),
        _number(epoch.intensity_gco2e_per_kwh),
        code_span(", ".join(part for part in about if part)),
        _number(epoch.flops),
        f"{epoch.tensors_selected}/{epoch.tensors_total}" if epoch.tensors_total else EMPTY_CELL,
        _number(epoch.train_loss),
        _number(epoch.eval_loss),
        _number(cost.energy_kwh if cost else None),
        _number(cost.emissions_gco2e if cost else None),
    ]


def _evaluation(evaluation: Mapping[str, Any]) -> str:
    loss, rouge = evaluation.get("eval_loss") or {}, evaluation.get("rouge") or {}
    if not loss:
        return "No rows were held out for it."
    before, after = (rouge.get(when) or {} for when in ("before", "after"))
    rows = [("loss", _number(loss.get("before")), _number(loss.get("after")))]
    rows += [(code_span(name), _number(before.get(name)), _number(after.get(name))) for name in sorted(before | after)]
    held_out = f"On {evaluation.get('rows')} rows that were not trained on; ROUGE is in per cent."
    if duplicates := evaluation.get("held_out_duplicates"):
        held_out += f" {duplicates} more were drawn but not held out, since equal rows are trained on."
    return f"{held_out}\n\n{format_table(('', 'before', 'after'), rows)}"


def _energy(facts: ModelCardFacts) -> str:
    ways: Mapping[str, Sequence[str]] = facts.basis.methods if facts.basis else {}
    rows = [
        (
            title,
            _number(sum(getattr(cost, f"{key}_kwh") for cost in facts.costs.values())),
            *_metering_methods(ways.get(key, ())),
        )
        for key, title in (("cpu", "processor"), ("gpu", "GPU"), ("ram", "memory"))
    ]
    rows.append(("in all", _number(facts.job.energy_kwh), "", ""))
    attempts = facts.job.attempts
    lost = f" It includes all {attempts} attempts." if attempts > 1 else ""
    if facts.basis and facts.basis.lost_kwh:
        lost += (
            f" {facts.basis.lost_kwh:.4g} kWh of it are an estimate of the energy that lost attempts had not stored."
        )
    known = f"The total includes loading and evaluating the model, the epochs do not.{lost}"
    return f"{format_table(('component', 'kWh', 'method', 'kind'), rows)}\n\n{known}"


def _metering_methods(ways: Sequence[str]) -> tuple[str, str]:
    if not ways:
        return EMPTY_CELL, EMPTY_CELL
    kinds = {"estimate" if is_estimate(way) else "meter" for way in ways if way != "none"}
    return ", ".join(map(code_span, ways)), " and ".join(sorted(kinds)) or EMPTY_CELL


def _emissions(facts: ModelCardFacts) -> str:
    job, basis = facts.job, facts.basis
    sources = ", ".join(map(code_span, basis.sources)) if basis and basis.sources else "no source"
    rough = ", including estimates" if basis and basis.estimated else ""
    unpriced = (
        f" It excludes {basis.unpriced_kwh:.4g} kWh that have no price yet." if basis and basis.unpriced_kwh else ""
    )
    counted = "direct emissions only" if job.emission_factors == "direct" else "over the plants' life cycle"
    return (
        f"**{_number(_known_gco2e(facts))} gCO2e** in zone {code_span(job.zone or 'unknown')} on "
        f"{code_span(job.device or 'unknown')}: each interval's energy times a PUE of {facts.pue:.4g} (the site's "
        "energy per kWh of its machines) times "
        f"the intensity of that time ({code_span(job.signal or 'average')} signal, {counted}), "
        f"from {sources}{rough}.{unpriced}\n\n"
        f"{_finality(facts)}"
    )


def _finality(facts: ModelCardFacts) -> str:
    total = facts.job.emissions_gco2e
    link = code_span(f"GET /jobs/{facts.job.id}")
    if facts.job.energy_kwh and facts.basis and not facts.basis.unpriced_kwh and facts.settled_gco2e >= total > 0:
        return f"The figure was settled {_time(facts.at)}."
    if _known_gco2e(facts) is None:
        return f"No intensity was known by {_time(facts.at)}. This file is not updated; {link} has newer figures."
    return (
        f"The figure is provisional, as of {_time(facts.at)}: {facts.settled_gco2e:.4g} of {total:.4g} gCO2e had their "
        f"final price. This file is not updated; {link} has the settled figure and its time."
    )


def _software() -> str:
    rows = [("greentune", version("greentune")), ("Python", platform.python_version())]
    rows += [(name, version(name)) for name in LIBRARIES]
    return format_table(("", "version"), ((code_span(name), code_span(number)) for name, number in rows))


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


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def to_one_line(text: object) -> str:
    """Return the text with runs of invisible characters and whitespace replaced by one space."""
    visible = "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in str(text))
    return " ".join(visible.split())


def _number(value: float | None) -> str:
    return EMPTY_CELL if value is None else f"{value:.4g}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
