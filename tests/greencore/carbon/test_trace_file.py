from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from greencore.carbon import InvalidTrace
from greencore.carbon.trace_file import read_trace

EXPORT_HEADER = (
    "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),"
    "Carbon Intensity gCO₂eq/kWh (LCA),Low Carbon Percentage,Renewable Percentage,Data Source,Data Estimated,"
    "Data Estimation Method"
)


def write(folder: Path, text: str) -> Path:
    file = folder / "trace.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_times_without_an_offset_are_in_utc_and_others_are_converted(tmp_path: Path) -> None:
    file = write(tmp_path, "datetime,gco2e_per_kwh\n2026-11-23T10:00,1\n2026-11-23T12:00+01:00,2\n")
    first, second = read_trace(file, "Z")
    assert first.start == datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert second.start == datetime(2026, 11, 23, 12, tzinfo=timezone(timedelta(hours=1)))
    assert second.start.utcoffset() == timedelta(0)


def test_an_electricity_maps_export_gives_its_life_cycle_values_and_estimates(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        f"{EXPORT_HEADER}\n"
        "2022-01-01 00:00:00,Spain,Spain,ES,133.64,175.54,76.35,42.94,entsoe.eu,false,\n"
        "2022-01-01 01:00:00,Spain,Spain,ES,139.1,181.54,75.69,41.62,entsoe.eu,true,TIME_SLICER\n",
    )
    rows = read_trace(file, "Z")
    assert [(row.gco2e_per_kwh, row.estimated) for row in rows] == [(175.54, False), (181.54, True)]
    assert rows[1].end == datetime(2022, 1, 1, 2, tzinfo=UTC)


def test_an_export_with_only_direct_values_gives_those(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "Datetime (UTC),Carbon intensity gCO₂eq/kWh (direct)\n2022-01-01 00:00:00,133\n2022-01-01 01:00:00,139\n",
    )
    assert [row.gco2e_per_kwh for row in read_trace(file, "Z")] == [133, 139]


def test_the_spacing_of_the_rows_is_their_length_and_a_missing_row_leaves_a_gap(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "datetime,gco2e_per_kwh\n2026-01-01T00:00,1\n2026-01-01T00:30,2\n2026-01-01T02:00,3\n2026-01-01T02:30,4\n",
    )
    rows = read_trace(file, "Z")
    assert [row.end - row.start for row in rows] == [timedelta(minutes=30)] * 4


@pytest.mark.fault(number=17)
@pytest.mark.parametrize(
    "minutes",
    [[5] * 48 + [60] * 20, [60] * 20 + [5] * 48, [60] * 5 + [15] * 40 + [60] * 5, [60] * 30 + [180] * 8, [1440] * 9],
    ids=["5 min to 1 h", "1 h to 5 min", "there and back", "1 h to 3 h", "daily"],
)
def test_a_file_whose_spacing_changes_covers_all_of_its_time(tmp_path: Path, minutes: list[int]) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    starts = [start + timedelta(minutes=sum(minutes[:index])) for index in range(len(minutes))]
    lines = [f"{time.isoformat()},{index}" for index, time in enumerate(starts)]
    rows = read_trace(write(tmp_path, "\n".join(["datetime,gco2e_per_kwh", *lines])), "Z")
    assert [row.end - row.start for row in rows] == [timedelta(minutes=length) for length in minutes]


@pytest.mark.fault(number=17)
@pytest.mark.parametrize(
    "minutes",
    [
        [days * 1440 for days in (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)],
        [60, 61, 60, 59, 60, 62, 60, 60],
        [5, 5, 5, 8, 12, 20, 30],
        [1440, 1380, 1440, 1440, 1500, 1440],
    ],
    ids=["months", "late by minutes", "ever wider", "days of local time"],
)
def test_a_spacing_in_which_no_row_can_be_missing_is_no_gap(tmp_path: Path, minutes: list[int]) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    starts = [start + timedelta(minutes=sum(minutes[:index])) for index in range(len(minutes) + 1)]
    lines = [f"{time.isoformat()},{index}" for index, time in enumerate(starts)]
    rows = read_trace(write(tmp_path, "\n".join(["datetime,gco2e_per_kwh", *lines])), "Z")
    assert [row.end for row in rows[:-1]] == starts[1:]


def test_comments_and_blank_lines_are_skipped_and_a_label_is_kept(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "\ufeff# two hours\n# label: synthetic\n\n"
        "datetime,gco2e_per_kwh\n2026-01-01T00:00,1\n# more\n2026-01-01T01:00,2\n",
    )
    rows = read_trace(file, "Z")
    assert [row.source for row in rows] == ["trace (synthetic)"] * 2


def test_a_trace_without_a_label_comment_has_none(tmp_path: Path) -> None:
    file = write(tmp_path, "# synthetic\ndatetime,gco2e_per_kwh\n2026-01-01T00:00,1\n2026-01-01T01:00,2\n")
    assert {row.source for row in read_trace(file, "Z")} == {"trace"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("yesterday,1", "'yesterday' is not a time: expected ISO 8601"),
        ("2026-01-01T02:00,", "'' is not an intensity"),
        ("2026-01-01T02:00,much", "'much' is not an intensity"),
        ("2026-01-01T02:00,-1", "'-1' is not an intensity"),
        ("2026-01-01T02:00,nan", "'nan' is not an intensity"),
        ("2026-01-01T02:00", "1 columns: expected 2"),
        ("2026-01-01T02:00,1,2", "3 columns: expected 2"),
        ("2026-01-01T01:00,1", "does not come after 2026-01-01T01:00:00"),
        ("2026-01-01T00:30,1", "does not come after 2026-01-01T01:00:00"),
    ],
)
def test_a_malformed_row_is_refused_with_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    file = write(
        tmp_path,
        f"# a comment\ndatetime,gco2e_per_kwh\n2026-01-01T00:00,1\n2026-01-01T01:00,1\n{row}\n2026-01-01T09:00,1\n",
    )
    with pytest.raises(InvalidTrace, match=message) as caught:
        read_trace(file, "Z")
    assert (caught.value.file, caught.value.line) == (file, 5)
    assert str(caught.value).startswith(f"{file}, line 5: ")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "the file is empty"),
        ("time,gco2e_per_kwh\n", 1, "expected a column 'datetime'"),
        ("datetime,intensity\n", 1, "expected a column 'gco2e_per_kwh'"),
        ("datetime,gco2e_per_kwh\n2026-01-01T00:00,1\n", None, "expected at least two"),
    ],
)
def test_a_file_that_is_not_a_trace_is_refused(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    with pytest.raises(InvalidTrace, match=message) as caught:
        read_trace(write(tmp_path, text), "Z")
    assert caught.value.line == line


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidTrace, match=r"absent\.csv: there is no such file"):
        read_trace(tmp_path / "absent.csv", "Z")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidTrace, match=r"binary\.csv: the file cannot be read as UTF-8 text"):
        read_trace(tmp_path / "binary.csv", "Z")
    with pytest.raises(InvalidTrace, match="the file cannot be read"):
        read_trace(tmp_path, "Z")
