"""The selection map on the page of a job: a grid for each epoch, by mouse, by keyboard, and as a table."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.sync_api import Page, expect
from sqlalchemy import text

from store.lifecycle.status import JobStatus
from tests.browser.conftest import Dashboard
from tests.browser.long_run import NAMES, stage_long_run
from tests.browser.pages.test_job_chart import figures, staged
from tests.browser.stage import tensors
from tests.browser.watch import monitor_of


def open_map(page: Page, job_id: str) -> None:
    page.goto(f"/dashboard/jobs/{job_id}")
    page.locator("#map-grids canvas").first.wait_for()


def titles(page: Page) -> list[str]:
    return page.locator("#map-grids figcaption strong").all_inner_texts()


def test_cells_name_their_tensor_by_keyboard_and_by_mouse(page: Page, dashboard: Dashboard) -> None:
    open_map(page, staged(dashboard, JobStatus.SUCCEEDED, epochs_done=3, epochs=3))
    assert titles(page) == ["Epoch 3", "Epoch 2", "Epoch 1"]
    grids = page.locator("#map-grids canvas")
    assert [grid.get_attribute("tabindex") for grid in grids.all()] == ["0", "-1", "-1"], "one stop of Tab"
    readout = page.locator("#map-readout")

    grids.first.focus()
    expect(readout).to_contain_text("Epoch 3")
    expect(readout).to_contain_text("lm_head.weight")
    expect(page.locator("#announcement")).to_contain_text("lm_head.weight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(readout).to_contain_text("model.layers.11.")
    for what in ("importance", "t_dw ", "t_dy ", "FLOPs a step", "parameters", "ρ "):
        expect(readout).to_contain_text(what)
    page.keyboard.press("End")
    expect(readout).to_contain_text("model.embed_tokens.weight")
    page.keyboard.press("PageDown")
    expect(grids.nth(1)).to_be_focused()
    expect(readout).to_contain_text("Epoch 2")
    assert [grid.get_attribute("tabindex") for grid in grids.all()] == ["-1", "0", "-1"]

    grids.nth(2).hover(position={"x": 60, "y": 100})
    expect(readout).to_contain_text("Epoch 1")
    page.mouse.move(0, 0)
    expect(readout).to_contain_text("Point at a cell")


def test_older_epochs_are_fetched_on_request_and_all_are_in_the_table(page: Page, dashboard: Dashboard) -> None:
    job_id = staged(dashboard, JobStatus.SUCCEEDED)
    stage_long_run(dashboard.database, job_id, datetime.now(UTC) - timedelta(days=8), epochs=12)
    open_map(page, job_id)
    assert titles(page) == [f"Epoch {number}" for number in range(12, 4, -1)]
    page.get_by_text("Tensors and their importance in each epoch: the data as a table").click()
    table = page.get_by_role("region", name="Tensors and their importance in each epoch")
    expect(table.get_by_role("row")).to_have_count(len(NAMES) + 1)

    page.get_by_role("button", name="Show older epochs").click()

    expect(page.locator("#map-grids figure")).to_have_count(12)
    expect(page.get_by_role("button", name="Show older epochs")).to_be_hidden()
    expect(page.locator('#map-grids canvas[data-epoch="4"]')).to_be_focused()
    expect(table.get_by_role("columnheader", name="Epoch 1", exact=True)).to_be_visible()


def test_an_epoch_that_ends_is_added_without_requests_before_it_ends(page: Page, dashboard: Dashboard) -> None:
    job_id = staged(dashboard, JobStatus.RUNNING, epochs_done=1)
    open_map(page, job_id)
    asked = [request for request in monitor_of(page).requests if "/selection" in request.url]
    update = "UPDATE jobs SET revision = revision + 1, steps_done = steps_done + 1{} WHERE id = :id"
    with dashboard.database.session() as session:
        session.execute(text(update.format("")), {"id": job_id})
    expect(page.get_by_role("main")).to_contain_text("151 of")
    assert [request for request in monitor_of(page).requests if "/selection" in request.url] == asked

    selection = json.dumps({tensors()[0].name: 0.5})
    importance = [0.5, *[0.1] * (len(tensors()) - 1)]
    with dashboard.database.session() as session:
        session.execute(
            text(
                "UPDATE epochs SET finished_at = now(), rho_reached = 0.5, selection = CAST(:selection AS jsonb), "
                "importance = :importance WHERE job_id = :id AND number = 2"
            ),
            {"id": job_id, "selection": selection, "importance": importance},
        )
        session.execute(text(update.format(", epochs_done = 2")), {"id": job_id})

    expect(page.locator("#map-grids figure")).to_have_count(2)
    assert titles(page) == ["Epoch 2", "Epoch 1"]
    expect(page.locator("#map-grids figcaption").first).to_contain_text(f"1 of {len(tensors())} tensors")


def test_a_method_that_trains_everything_has_one_grid(page: Page, dashboard: Dashboard) -> None:
    job_id = staged(dashboard, JobStatus.SUCCEEDED, epochs_done=3, method="full")
    everything = json.dumps({tensor.name: None for tensor in tensors()})
    with dashboard.database.session() as session:
        session.execute(
            text("UPDATE epochs SET importance = NULL, selection = CAST(:all AS jsonb) WHERE job_id = :id"),
            {"all": everything, "id": job_id},
        )

    open_map(page, job_id)

    assert titles(page) == ["Epochs 1–3"]
    expect(page.locator("#map-note")).to_have_text("ρ = 1: all tensors trained, nothing was probed.")


def layout_of(page: Page, *tensors: tuple[str | None, int | None, str]) -> Any:
    given = [{"name": "", "stack": stack, "layer": layer, "kind": kind} for stack, layer, kind in tensors]
    return figures(page, "job/map_layout.js", f"layout({json.dumps(given)})")


def test_rows_are_layers_columns_are_kinds_and_stacks_are_separate(page: Page) -> None:
    page.goto("/")

    [one] = layout_of(
        page,
        (None, None, "lm_head"),
        (None, 1, "mlp.down_proj"),
        (None, 1, "input_layernorm"),
        (None, 1, "self_attn.q_proj"),
        (None, 0, "self_attn.q_proj"),
    )
    assert one["labels"] == ["q", "down", "norm"]
    assert [(row["label"], row.get("whole"), row.get("cells")) for row in one["rows"]] == [
        ("head", 0, None),
        ("1", None, [3, 1, 2]),
        ("0", None, [4, None, None]),
    ]

    two = layout_of(
        page,
        (None, None, "lm_head"),
        ("decoder", 0, "EncDecAttention.q"),
        ("decoder", 0, "SelfAttention.q"),
        ("encoder", 0, "SelfAttention.q"),
    )
    assert [(part["stack"], part["labels"]) for part in two] == [
        (None, []),
        ("decoder", ["q", "×q"]),
        ("encoder", ["q"]),
    ]


def test_shades_cover_three_powers_of_ten_below_the_largest(page: Page) -> None:
    page.goto("/")
    epoch = "{trained: [0], trainedSet: new Set([0]), largest: 1, importance: [1, 0.1, 0.001, null, -1]}"

    found = figures(
        page, "job/map_layout.js", f"cellState && [0, 1, 2, 3, 4].map((index) => module.cellState({epoch}, index))"
    )

    assert [part["state"] for part in found] == ["trained", "probed", "probed", "unreached", "probed"]
    assert [round(part["shade"], 3) for part in found] == [1, 0.667, 0, 0, 0]
