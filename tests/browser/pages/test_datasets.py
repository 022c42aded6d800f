"""`/dashboard/datasets` in a real browser: an upload, its page, tokens counted on request, and deletion."""

from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import Page, expect

from store.lifecycle.status import JobStatus
from store.repositories.token_statistics import CountRequest, TokenStatisticsRepository
from tests.browser.accessible import check_accessible
from tests.browser.conftest import Dashboard, SignIn
from tests.browser.pictures import take_pictures
from tests.browser.stage import stage_dataset, stage_job
from tests.browser.watch import monitor_of

DATASETS = "/dashboard/datasets"
MODEL = "SmolLM2-135M-Instruct"
CHAT = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "id": 1}\n'
LENGTHS = {"total": 26, "mean": 13.0, "median": 13, "p90": 13, "p99": 13, "max": 13}
COUNTS = {
    "rows": 2,
    "dropped_rows": 0,
    "dropped_lines": [],
    **dict.fromkeys(("tokens", "prompt", "completion"), LENGTHS),
    "longer_than": {"512": 0, "1024": 0, "2048": 0},
    "histogram": [{"up_to": 8, "rows": 0}, {"up_to": 16, "rows": 2}],
}
PREVIEW = {
    "rows": [
        {
            "line": 1,
            "examples": [
                [
                    {"text": "<|im_start|>user\nHello<|im_end|>", "tokens": 5, "learned": False},
                    {"text": "Hi<|im_end|>", "tokens": 2, "learned": True},
                ]
            ],
            "tokens": 7,
            "learned_tokens": 2,
            "is_cut": False,
            "error": None,
        }
    ]
}


def test_a_file_is_uploaded_looked_at_and_counted(page: Page, dashboard: Dashboard, tmp_path: Path) -> None:
    page.goto(DATASETS)
    expect(page.get_by_text("No dataset yet")).to_be_visible()
    check_accessible(page)

    wrong, right = tmp_path / "wrong.jsonl", tmp_path / "chats.jsonl"
    wrong.write_text(CHAT + '{"chosen": "a", "rejected": "b"}\n{"messages": []}\n')
    monitor_of(page).expect("422")
    page.get_by_label("Upload a file of rows").set_input_files(wrong)
    faults = page.get_by_role("listitem")
    expect(faults).to_have_count(2)
    expect(faults.first).to_contain_text("line 2: chosen: is not supported: preferences are not learned")
    expect(faults.last).to_contain_text("line 3: messages: must be a list with at least one message")
    assert not list(dashboard.settings.datasets_dir.glob("*.jsonl"))

    right.write_text(CHAT + '{"instruction": "Add.", "input": "2 + 2", "output": "4"}\n')
    page.get_by_label("Upload a file of rows").set_input_files(right)
    expect(page.get_by_role("heading", name="chats.jsonl")).to_be_visible()
    expect(page.get_by_text("messages 1, instruction 1")).to_be_visible()
    expect(page.get_by_text("Not used of its rows: id")).to_be_visible()
    expect(page.get_by_role("article", name="Row 1")).to_contain_text("Hello")
    expect(page.get_by_role("article", name="Row 2")).to_contain_text("2 + 2")
    dataset_id = page.url.rsplit("/", 1)[1]

    page.get_by_label("Count the tokens for").select_option(MODEL)
    page.get_by_role("button", name="Count").click()
    expect(page.get_by_text("Counting since")).to_be_visible()
    with dashboard.database.session() as session:
        counts, wanted = TokenStatisticsRepository(session), CountRequest(dataset_id, MODEL)
        counts.put_preview(wanted, PREVIEW)
        counts.put(wanted, at=datetime.now(UTC), counts=COUNTS)
    expect(page.get_by_role("row", name="Learned 26 13")).to_be_visible(timeout=10_000)
    page.get_by_text("What is learned of the first rows").click()
    expect(page.get_by_role("article", name="Row 1 as it is learned").locator("mark")).to_have_text("Hi<|im_end|>")
    page.get_by_text("Histogram").click()
    expect(page.get_by_role("progressbar", name="2 examples of up to 16 tokens")).to_be_visible()
    check_accessible(page)
    take_pictures(page, "dataset")

    expect(page.get_by_role("link", name="New job").last).to_have_attribute(
        "href", f"/dashboard/submit?dataset={dataset_id}"
    )
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete it").click()
    expect(page.get_by_role("heading", name="Datasets")).to_be_visible()
    expect(page.get_by_text("No dataset yet")).to_be_visible()


def test_columns_with_other_names_are_mapped_in_one_line(page: Page, dashboard: Dashboard, tmp_path: Path) -> None:
    monitor_of(page).expect("422")
    rows = tmp_path / "questions.json"
    rows.write_text('[{"question": "1 + 1 =", "data": {"answer": " 2"}}]')
    page.goto(DATASETS)
    columns, fault = page.get_by_label("Its columns"), page.locator("#file-columns-error")
    again = page.get_by_role("button", name="Upload questions.json again")

    page.get_by_label("Upload a file of rows").set_input_files(rows)
    expect(page.locator("#file-error")).to_contain_text("got the keys 'data, question'")
    for line, message in (
        ("prompt=question, data.answer", "“data.answer”: expected KEY=NAME, such as prompt=question"),
        ("prompt=question, prompt=data", "prompt is given twice"),
        ("answer=question", "'answer' is no key of a row: expected completion"),
        ('{"prompt": ', "is not JSON"),
    ):
        columns.fill(line)
        again.click()
        expect(fault).to_contain_text(message)
        expect(columns).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#file-error")).to_be_hidden()
        columns.press("End")
        columns.press("Space")
        expect(fault).to_be_hidden()
    check_accessible(page)

    columns.fill("prompt=question, completion=data.reply")
    again.click()
    expect(page.locator("#file-error")).to_contain_text("data.reply: is missing: completion is to be taken from it")
    take_pictures(page, "datasets-columns")

    columns.fill("prompt=question, completion=data.answer")
    columns.press("Enter")
    expect(page.get_by_role("heading", name="questions.json")).to_be_visible()
    expect(page.get_by_text("prompt from question, completion from data.answer")).to_be_visible()


def test_a_dataset_that_a_job_needs_is_kept(page: Page, dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    dataset = stage_dataset(dashboard.database, dashboard.settings, now=now)
    job = stage_job(dashboard.database, dashboard.settings, dataset, JobStatus.RUNNING, now=now, epochs_done=2)

    page.goto(f"{DATASETS}/{dataset}")
    row = page.get_by_role("row", name=job)
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("training")
    expect(row.get_by_role("link")).to_have_attribute("href", f"/dashboard/jobs/{job}")

    page.goto(DATASETS)
    page.get_by_role("button", name="Delete sums.jsonl").click()
    dialog = page.get_by_role("dialog")
    monitor_of(page).expect("409")
    dialog.get_by_role("button", name="Delete it").click()
    expect(dialog.get_by_role("alert")).to_contain_text(f"is needed by jobs that are not over: {job}")
    dialog.get_by_role("button", name="Keep it").click()
    page.get_by_role("link", name="sums.jsonl", exact=True).click()
    expect(page.get_by_role("heading", name="sums.jsonl")).to_be_visible()


def test_a_user_sees_their_own_datasets(sign_in: SignIn, dashboard: Dashboard) -> None:
    now = datetime.now(UTC)
    others = stage_dataset(dashboard.database, dashboard.settings, now=now, owner="bob")
    own = stage_dataset(dashboard.database, dashboard.settings, now=now, owner="alice")
    page = sign_in("alice", "user")

    page.get_by_role("link", name="Datasets").click()

    expect(page.get_by_text(own)).to_be_visible()
    assert others not in page.content()
