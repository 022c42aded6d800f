"""Uploads in `/dashboard/submit`: their faults, their columns, and the choice of the new dataset."""

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Dashboard
from tests.browser.pages.conftest import REFUSED, estimate
from tests.browser.watch import monitor_of


def test_errors_of_an_upload_name_their_lines_and_a_valid_file_is_chosen(
    page: Page, dashboard: Dashboard, dataset: str, tmp_path: Path
) -> None:
    monitor_of(page).expect(REFUSED)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "good"}\n{"prompt": "no completion"}\n{broken\n')
    page.goto("/dashboard/submit")

    page.get_by_label("Upload a file", exact=True).set_input_files(rows)
    expect(page.locator("#file-error")).to_contain_text("2 faults")
    expect(page.locator("#file-error li")).to_have_count(2)
    expect(page.locator("#file-error")).to_contain_text("line 2")
    expect(page.locator("#file-error")).to_contain_text("line 3")
    expect(page.get_by_label("Upload a file", exact=True)).to_have_attribute("aria-invalid", "true")

    rows.write_text('{"text": "good"}\n' * 1000)
    page.get_by_label("Upload a file", exact=True).set_input_files(rows)
    expect(page.locator("#dataset option:checked")).to_have_text("rows.jsonl (1,000 rows)")
    expect(page.locator("#file-error")).to_be_hidden()
    expect(estimate(page)).to_contain_text("gCO2e")


def test_each_file_has_its_own_columns(page: Page, dashboard: Dashboard, dataset: str, tmp_path: Path) -> None:
    monitor_of(page).expect(REFUSED)
    rows, held_out = tmp_path / "rows.csv", tmp_path / "held-out.jsonl"
    rows.write_text("question,answer\n1 + 1 =,2\n2 + 2 =,4\n")
    held_out.write_text('{"q": "3 + 3 =", "a": {"text": "6"}}\n')
    page.goto("/dashboard/submit")

    page.get_by_label("Upload a file", exact=True).set_input_files(rows)
    expect(page.locator("#file-error")).to_contain_text("rows.csv has no column of ")
    page.locator("#file-columns").fill("prompt=question, completion=answer")
    page.get_by_role("button", name="Upload rows.csv again").click()
    expect(page.locator("#dataset option:checked")).to_have_text("rows.csv (2 rows)")
    page.get_by_label("Upload a file to evaluate on").set_input_files(held_out)
    expect(page.locator("#validation-file-error")).to_contain_text("line 1")
    page.locator("#validation-file-columns").fill("prompt=q, completion=a.text")
    page.locator("#validation-file-columns").press("Enter")
    expect(page.locator("#validation_dataset option:checked")).to_have_text("held-out.jsonl (1 row)")
    expect(page.locator("#validation-file-error")).to_be_hidden()
    expect(estimate(page)).to_contain_text("gCO2e")

    page.get_by_label("Upload a file to evaluate on").set_input_files(rows)
    expect(page.locator("#validation-file-error")).to_be_visible()
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("#validation-file-error")).to_be_hidden()
    expect(page.get_by_role("button", name="Upload rows.csv again")).to_be_hidden()
    expect(page.locator("#file-columns")).to_have_value("")
