"""The model card describes a run and its cost, and user texts cannot contain markup in it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from greencore.carbon import IntensitySeries, Reading
from greencore.carbon.accounting.pricing import price_by_reading
from greencore.energy import EnergyInterval
from greencore.policy import RhoDecision
from runtime.catalogue import CatalogueEntry
from store.database import Database
from store.lifecycle.leases import Lease
from store.lifecycle.progress import EpochMeasurement, add_energy, finish_epoch, start_epoch
from store.tables import Dataset, Job
from store.tables import EnergyInterval as StoredInterval
from tests.scheduler.stage import START, add_job, claim_as_worker
from worker.training.model_card import EMPTY_CELL, FILE_NAME, code_span, to_one_line, write_model_card

ENTRY = CatalogueEntry("small", "hub:owner/small@" + "0" * 40, "Apache-2.0")
SECOND = timedelta(seconds=1)
NASTY = (
    "`x` | <script>alert(1)</script>\n\n# Heading\n---\nlicense: mit\n![a](http://evil) [b](javascript:1) "
    "\"' \\ ``` \u2028\u202e\x07"
)
EVALUATION: dict[str, Any] = {
    "rows": 4,
    "eval_loss": {"before": 2.5, "after": 1.25},
    "rouge": {"before": {"rouge1": 10.0}, "after": {"rouge1": 30.5}},
    "sample": {"prompt": "a private prompt", "before": "x", "after": "y"},
}
MARKDOWN = MarkdownIt("commonmark").enable("table")


def tokens(text: str) -> list[Token]:
    """All tokens, those within a line included."""
    return [part for token in MARKDOWN.parse(text) for part in (token, *(token.children or ()))]


def cells(text: str) -> list[str]:
    return [token.content for token in MARKDOWN.parse(text) if token.type == "inline"]


def reading(value: float, start: int, end: int, *, estimated: bool = False) -> Reading:
    return Reading(
        zone="FR",
        start=START + start * SECOND,
        end=START + end * SECOND,
        gco2e_per_kwh=value,
        source="uk",
        estimated=estimated,
        fetched_at=START,
    )


def interval(start: int, end: int, *, cpu_method: str = "TDP estimate") -> EnergyInterval:
    return EnergyInterval(
        start=START + start * SECOND,
        end=START + end * SECOND,
        cpu_kwh=0.0005,
        gpu_kwh=0.002,
        ram_kwh=0.0001,
        cpu_method=cpu_method,
        gpu_method="NVML energy counter",
        ram_method="capacity estimate",
    )


def decision(rho: float, **changed: Any) -> RhoDecision:
    plain = RhoDecision(
        rho=rho,
        reason="r",
        intensity_gco2e_per_kwh=212.0,
        source="uk",
        step="fresh",
        age_seconds=60.0,
        estimated=False,
    )
    return replace(plain, **changed)


@pytest.fixture
def job_id(database: Database) -> str:
    """A job of two epochs that is about to succeed: 300 g/kWh for the first, 100 for the second and what followed."""
    job_id = add_job(database, zone="FR", epochs=2, policy_name="green", hyperparameters={"epochs": 2})
    lease = claim_as_worker(database, job_id, at=START)
    series = IntensitySeries([reading(300, 0, 30), reading(100, 30, 90)])
    with database.session() as session:
        for number, rho in [(1, 0.6), (2, 0.9)]:
            start_epoch(session, lease, number, decision(rho), at=START)
            measured = EpochMeasurement(
                rho_reached=rho - 0.01,
                flops=(rho - 0.01) * 1e13,
                full_flops=1e13,
                probe_flops=2e11,
                tensors_selected=2,
                tensors_total=5,
                train_loss=1.5,
                eval_loss=1.25,
            )
            finish_epoch(session, lease, number, at=START, measured=measured, utility=None)
            used = interval(30 * number - 30, 30 * number)
            add_energy(session, lease, number, used, price_by_reading(used, series, pue=1.5))
        last = interval(60, 90)
        add_energy(session, lease, 0, last, price_by_reading(last, series, pue=1.5))
    return job_id


def card(
    database: Database,
    job_id: str,
    folder: Path,
    entry: CatalogueEntry | None = ENTRY,
    *,
    file: str = "model.safetensors",
    evaluation: dict[str, Any] = EVALUATION,
) -> str:
    """The card of the job with a result of one file."""
    (folder / file).touch()
    with database.session() as session:
        job = session.get_one(Job, job_id)
        write_model_card(session, job, folder, entry=entry, evaluation=evaluation, at=START)
    return (folder / FILE_NAME).read_text()


def front_matter(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.removeprefix("---\n").split("\n---\n")[0])
    return found


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def row(text: str, first: str) -> list[str]:
    """The cells of the table's row that begins with `first`."""
    [line] = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_card_states_model_data_method_and_what_it_cost(database: Database, job_id: str, tmp_path: Path) -> None:
    text = card(database, job_id, tmp_path)

    emissions = 0.0026 * 1.5 * (300 + 100 + 100)
    assert front_matter(text) == {
        "base_model": "owner/small",
        "base_model_relation": "finetune",
        "license": "apache-2.0",
        "library_name": "transformers",
        "tags": ["greentune", "greentrainer"],
        "co2_eq_emissions": {
            "emissions": pytest.approx(emissions),
            "source": "GreenTune: energy metered with CodeCarbon, priced interval by interval",
            "training_type": "fine-tuning",
            "geographical_location": "FR",
            "hardware_used": "cpu",
        },
    }
    assert row(text, "base model")[1] == "`m` (licence: `Apache-2.0`)"
    assert row(text, "dataset")[1] == "`rows`, 1 rows, SHA-256 `0`"
    assert row(text, "1") == (
        [
            "1",
            "0.6",
            "0.59",
            "212",
            "`uk, fresh`",
            "5.9e+12",
            "2/5",
            "1.5",
            "1.25",
            "0.0026",
            f"{0.0026 * 1.5 * 300:.4g}",
        ]
    )
    assert row(text, "2")[10] == f"{0.0026 * 1.5 * 100:.4g}"
    assert "1.48e+13 FLOPs (74.0% of the 2e+13" in text
    assert "1 multiply-accumulate counts as 2 FLOPs" in text
    assert "`green`" in text
    assert "private prompt" not in text


def test_rows_of_which_nothing_is_learned_are_named(database: Database, job_id: str, tmp_path: Path) -> None:
    assert "nothing of them is" not in card(database, job_id, tmp_path)
    dropped = {"dropped_rows": 3, "dropped_lines": [2, 7]}
    text = " ".join(card(database, job_id, tmp_path, evaluation=EVALUATION | dropped).split())
    assert "3 rows of the dataset were neither trained on nor evaluated" in text
    assert "(lines 2, 7 and more)." in text


def test_the_name_of_a_job_is_the_title_of_its_card(database: Database, job_id: str, tmp_path: Path) -> None:
    assert body(card(database, job_id, tmp_path)).startswith("\n# `m`, fine-tuned\n")
    with database.session() as session:
        session.get_one(Job, job_id).name = "Tickets, *third* try"

    text = card(database, job_id, tmp_path)
    assert body(text).startswith("\n# `Tickets, *third* try`\n")
    assert front_matter(text)["model_name"] == "Tickets, *third* try"


def test_the_card_has_all_energy_by_component_and_method(database: Database, job_id: str, tmp_path: Path) -> None:
    text = card(database, job_id, tmp_path)
    assert row(text, "processor") == ["processor", "0.0015", "`TDP estimate`", "estimate"]
    assert row(text, "GPU") == ["GPU", "0.006", "`NVML energy counter`", "meter"]
    assert row(text, "in all")[1] == "0.0078"
    assert "PUE of 1.5" in text


def test_a_provisional_price_is_named_with_a_link_to_the_final_one(
    database: Database, job_id: str, tmp_path: Path
) -> None:
    text = card(database, job_id, tmp_path)
    assert "provisional, as of 2026-11-23 12:00 UTC: 0 of 1.95 gCO2e" in text
    assert f"`GET /jobs/{job_id}`" in text

    with database.session() as session:
        for stored in session.query(StoredInterval):
            stored.settled = True
    assert "was settled 2026-11-23 12:00 UTC" in card(database, job_id, tmp_path)


def test_unpriced_energy_is_stated(database: Database, job_id: str, tmp_path: Path) -> None:
    used = interval(90, 120, cpu_method="RAPL")
    with database.session() as session:
        job = session.get_one(Job, job_id)
        assert job.lease_token is not None
        lease = Lease(job_id, job.lease_token, job.attempts)
        add_energy(session, lease, 0, used, price_by_reading(used, IntensitySeries(), pue=1.5))
    text = card(database, job_id, tmp_path)
    assert "excludes 0.0026 kWh that have no price yet" in text
    assert row(text, "processor")[2:] == ["`RAPL`, `TDP estimate`", "estimate and meter"]


@pytest.mark.parametrize(
    ("file", "loads", "relation"),
    [
        ("model.safetensors", "AutoModelForCausalLM", "finetune"),
        ("delta.safetensors", "greentune apply-delta --base BASE --delta delta.safetensors", "finetune"),
        ("adapter_config.json", "load_adapter(model", "adapter"),
    ],
)
def test_the_card_describes_how_to_load_the_result(
    database: Database, job_id: str, tmp_path: Path, file: str, loads: str, relation: str
) -> None:
    text = card(database, job_id, tmp_path, file=file)
    [block] = [token.content for token in tokens(body(text)) if token.type == "code_block"]
    assert loads in block
    assert front_matter(text)["base_model_relation"] == relation


@pytest.mark.parametrize(
    ("licence", "matter"),
    [
        ("MIT", {"license": "mit"}),
        ("Llama 3.2: ask\n---", {"license": "other", "license_name": "Llama 3.2: ask ---"}),
        ("", {"license": "other"}),
    ],
)
def test_a_licence_is_given_as_a_hub_identifier(
    database: Database, job_id: str, tmp_path: Path, licence: str, matter: dict[str, str]
) -> None:
    found = front_matter(card(database, job_id, tmp_path, CatalogueEntry("m", "folder", licence)))
    assert {key: value for key, value in found.items() if key.startswith("license")}.items() >= matter.items()
    assert found["base_model"] == "m"


def test_texts_of_users_and_operators_are_no_markup(database: Database, job_id: str, tmp_path: Path) -> None:
    plain = card(database, job_id, tmp_path)
    with database.session() as session:
        job = session.get_one(Job, job_id)
        job.labels = {NASTY: NASTY, "---": "..."}
        job.name = job.model = job.policy_name = job.device = NASTY
        job.hyperparameters = {"epochs": 2, "sample_prompt": NASTY, NASTY: NASTY}
        session.get_one(Dataset, job.dataset_id).name = NASTY

    text = card(database, job_id, tmp_path, CatalogueEntry(NASTY, NASTY, NASTY))

    matter = front_matter(text)
    assert matter.keys() == front_matter(plain).keys() | {"license_name", "model_name"}
    assert matter["base_model"] == matter["co2_eq_emissions"]["hardware_used"] == to_one_line(NASTY)
    assert to_one_line(NASTY) in [token.content for token in tokens(body(text)) if token.type == "code_inline"]
    # Two labels and an odd hyperparameter are rows more; no HTML, link or image is among what a plain card has.
    assert set(kinds(text)) == set(kinds(plain))
    assert kinds(text).count("heading_open") == kinds(plain).count("heading_open")
    assert kinds(text).count("tr_open") == kinds(plain).count("tr_open") + 3


def kinds(text: str) -> Sequence[str]:
    """Return the kinds of block and inline tokens."""
    return [token.type for token in tokens(body(text))]


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=12), min_size=2, max_size=3))
def test_any_text_is_one_cell_and_reads_as_it_is(texts: list[str]) -> None:
    rows = ["h"] * len(texts), ["---"] * len(texts), map(code_span, texts)
    parsed = MARKDOWN.parse("\n".join(f"| {' | '.join(row)} |" for row in rows))
    inline = [token for token in parsed if token.type == "inline"][len(texts) :]
    assert len(inline) == len(texts)
    for token, text in zip(inline, texts, strict=True):
        [child] = token.children or []
        assert child.content == (to_one_line(text) or "–")
        assert child.type == ("code_inline" if to_one_line(text) else "text")


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b", "a\x85b", "a\u202eb", "a\x1bb", " a \t b "])
def test_line_ends_and_invisible_characters_become_spaces(text: str) -> None:
    assert to_one_line(text) == "a b"


@pytest.mark.fault(number=12)
def test_a_card_of_energy_without_any_price_states_no_grams(database: Database, job_id: str, tmp_path: Path) -> None:
    with database.session() as session:
        for stored in session.query(StoredInterval):
            stored.emissions_gco2e = stored.intensity_gco2e_per_kwh = None
        session.get_one(Job, job_id).emissions_gco2e = 0.0
    text = card(database, job_id, tmp_path)
    matter = yaml.safe_load(text.split("---")[1])
    assert "emissions" not in matter["co2_eq_emissions"]
    assert "have no price" in matter["co2_eq_emissions"]["source"]
    assert f"**{EMPTY_CELL} gCO2e**" in text
    assert "No intensity was known by 2026-11-23 12:00 UTC" in text
