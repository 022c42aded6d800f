"""The model card of a result: what was trained on what, how, at which cost, and how that is known."""

import json
import platform
import re
from collections.abc import Mapping, Sequence
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
from worker.results.markdown import code_span, format_table, to_one_line

FILE_NAME = "README.md"
LIBRARIES = ("torch", "transformers", "peft", "safetensors", "codecarbon")
EMPTY_CELL = "–"


@dataclass(frozen=True)
class ModelCardFacts:
    """All that a card is made of: `files` are the result's, `pue` and `settled_gco2e` those of its energy so far."""

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
    """Write the card of a job, whose energy has been metered to its end, into the folder of its result."""
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
    """The card as Markdown, with the front matter that the Hugging Face hub reads."""
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
    """A licence by the hub's own kind of name, in small letters; None where it is no such name."""
    return licence.lower() if re.fullmatch(r"[A-Za-z0-9.-]+", licence) else None


def _base_model(facts: ModelCardFacts) -> str:
    """The hub's name of the base where it comes from there, else the catalogue's."""
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
            "This folder holds the changed tensors alone. The whole model is made of them and of the base, exactly as "
            f"it was trained, by\n\n    greentune apply-delta --base BASE --delta {DELTA_FILE_NAME} --output FOLDER\n\n"
            f"where BASE is {code_span(name)}: a name in GreenTune's catalogue, or where that model lies."
        )
    if _is_adapter(facts):
        return (
            f"This folder holds a prefix, to be put in front of {code_span(name)}:\n\n"
            "    from pathlib import Path\n"
            "    from greencore.training.methods.adapters import load_adapter, with_adapter\n"
            "    from transformers import GenerationConfig\n\n"
            '    model = with_adapter("prefix", base)  # base: the model as transformers loads it\n'
            '    base.generation_config = GenerationConfig.from_pretrained("FOLDER")  # where a text ends\n'
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
        steered = f"This method has no ρ to set: of the policy{named} {policy} the gate alone counted."
    return f"{parameters}\n\n{steered}\n\n{_flops(facts)}"


def _flops(facts: ModelCardFacts) -> str:
    spent, full, probes = (
        sum(getattr(epoch, column) or 0.0 for epoch in facts.epochs)
        for column in ("flops", "full_flops", "probe_flops")
    )
    share = f" ({spent / full:.1%} of the {full:.4g} of full fine-tuning on the same batches)" if full else ""
    return (
        f"The optimiser steps took {spent:.4g} FLOPs{share}, and finding out which tensors matter {probes:.4g} more. "
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
        return "No rows were held back for it."
    before, after = (rouge.get(when) or {} for when in ("before", "after"))
    rows = [("loss", _number(loss.get("before")), _number(loss.get("after")))]
    rows += [(code_span(name), _number(before.get(name)), _number(after.get(name))) for name in sorted(before | after)]
    held_out = f"On {evaluation.get('rows')} rows that were not trained; ROUGE is in per cent."
    if duplicates := evaluation.get("held_out_duplicates"):
        held_out += f" {duplicates} more were drawn, and not held out since equal rows are trained on."
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
    lost = f" All {attempts} attempts are in it." if attempts > 1 else ""
    if facts.basis and facts.basis.lost_kwh:
        lost += (
            f" {facts.basis.lost_kwh:.4g} kWh of it are an estimate of what attempts used that ended before they had "
            "stored it."
        )
    known = f"Loading the model and evaluating it are in the total, not in the epochs.{lost}"
    return f"{format_table(('component', 'kWh', 'found by', 'kind'), rows)}\n\n{known}"


def _metering_methods(ways: Sequence[str]) -> tuple[str, str]:
    if not ways:
        return EMPTY_CELL, EMPTY_CELL
    kinds = {"estimate" if is_estimate(way) else "meter" for way in ways if way != "none"}
    return ", ".join(map(code_span, ways)), " and ".join(sorted(kinds)) or EMPTY_CELL


def _emissions(facts: ModelCardFacts) -> str:
    job, basis = facts.job, facts.basis
    sources = ", ".join(map(code_span, basis.sources)) if basis and basis.sources else "no source"
    rough = ", estimates among them" if basis and basis.estimated else ""
    unpriced = (
        f" {basis.unpriced_kwh:.4g} kWh have no price yet, and are not in it." if basis and basis.unpriced_kwh else ""
    )
    counted = "direct emissions alone" if job.emission_factors == "direct" else "over the plants' life cycle"
    return (
        f"**{_number(_known_gco2e(facts))} gCO2e** in zone {code_span(job.zone or 'unknown')} on "
        f"{code_span(job.device or 'unknown')}: each interval's energy times a PUE of {facts.pue:.4g} (what the site "
        "draws for each kWh of its machines) times "
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
        return f"No intensity was known by {_time(facts.at)}. This file stays as it is; {link} tells what became known."
    return (
        f"The figure is provisional, as of {_time(facts.at)}: {facts.settled_gco2e:.4g} of {total:.4g} gCO2e had their "
        f"final price. This file stays as it is; {link} tells the settled figure and when it was settled."
    )


def _software() -> str:
    rows = [("greentune", version("greentune")), ("Python", platform.python_version())]
    rows += [(name, version(name)) for name in LIBRARIES]
    return format_table(("", "version"), ((code_span(name), code_span(number)) for name, number in rows))


def _number(value: float | None) -> str:
    return EMPTY_CELL if value is None else f"{value:.4g}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
