"""Uploads in every container and compression: the rows stored, where errors are placed, columns, and bombs."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from api.datasets.isolation import convert_file
from api.main import create_app
from greencore.dataset.containers import ColumnMapping, Container, ReadLimits, UnusableFile
from runtime.settings import Settings
from tests.keys import bearer
from tests.row_files import COMPRESSIONS, CONTAINERS, parquet

Form = list[tuple[str, tuple[str | None, str | bytes]]]
ROWS = [{"prompt": "2 + 2 =", "completion": " 4"}, {"prompt": 'say "a,\tb"', "completion": "Grüß\nGott\u2028"}]


JSON_LINES = CONTAINERS["jsonl"](ROWS)


def upload_file(client: TestClient, content: bytes, name: str = "rows", **query: str) -> Any:
    return client.post("/datasets", files={"file": (name, content)}, params=query)


def stored_lines(settings: Settings) -> list[bytes]:
    [stored] = settings.datasets_dir.glob("*.jsonl")
    return stored.read_bytes().splitlines()


@pytest.mark.parametrize("container", CONTAINERS)
def test_each_container_and_compression_of_it_gives_the_same_rows(
    client: TestClient, settings: Settings, container: str
) -> None:
    for compression, compress in COMPRESSIONS.items():
        content = compress(CONTAINERS[container](ROWS))

        response = upload_file(client, content)

        assert response.status_code == 201, response.text
        dataset = response.json()
        assert (dataset["format"], dataset["compression"]) == (container, compression or None)
        assert (dataset["rows"], dataset["bytes"], dataset["columns"]) == (2, len(content), None)
        assert dataset["contents"]["forms"] == {"prompt": 2}
        assert [json.loads(line) for line in stored_lines(settings) if line] == ROWS
        assert not list(settings.datasets_dir.joinpath("incoming").iterdir())
        client.delete(response.headers["location"]).raise_for_status()


@pytest.mark.parametrize(
    ("container", "places"),
    [
        ("jsonl", ["line 2: completion", "line 3", "line 4: prompt"]),
        ("json", ["element 2: completion", "element 3", "element 4: prompt"]),
        ("parquet", ["row 2: completion", "row 3", "row 4: prompt"]),
    ],
)
def test_an_invalid_row_is_named_by_its_line_element_or_row(
    client: TestClient, settings: Settings, container: str, places: list[str]
) -> None:
    rows: list[dict[str, Any]] = [*ROWS[:1], {"prompt": "alone"}, {"id": 1}, {"completion": "alone"}]

    for compress in COMPRESSIONS.values():
        response = upload_file(client, compress(CONTAINERS[container](rows)))

        assert response.status_code == 422
        assert [error["field"] for error in response.json()["errors"]] == places
    assert not list(settings.datasets_dir.rglob("*.*"))


def test_an_invalid_row_of_a_table_is_named_by_the_line_on_which_it_begins(client: TestClient) -> None:
    content = b'prompt,completion\r\na,"b\r\nc"\r\n\r\nalone\r\n"d","e"f\r\n"g\r\n",\xff\r\nh, \r\n"i",j\r\n"k,\r\nl'

    response = upload_file(client, content)

    assert [(error["field"], error["message"]) for error in response.json()["errors"]] == [
        ("line 5", "has 1 cells, but the header has 2"),
        ("line 6", "not CSV: ',' expected after '\"'"),
        ("line 7", "not UTF-8: byte 2 of line 8 cannot be decoded"),
        ("line 9: completion", "is empty: there is nothing to learn from it"),
        ("line 11", "not CSV: unexpected end of data"),
    ]


def test_a_stored_row_keeps_the_number_that_its_file_gave_it(client: TestClient, settings: Settings) -> None:
    location = upload_file(client, b'\xef\xbb\xbftext\n"a\nb"\n\nc\n').headers["location"]

    assert stored_lines(settings) == [b"", b'{"text":"a\\nb"}', b"", b"", b'{"text":"c"}']
    assert [row["number"] for row in client.get(f"{location}/preview").json()["data"]] == [2, 5]


def test_a_table_without_a_known_header_is_found_by_name_or_media_type(client: TestClient) -> None:
    comma, tab, columns = b"q,a\n1,2\n", b"q,x\ta\n1\t2\n", '{"prompt": "q", "completion": "a"}'
    by_name = [upload_file(client, comma, name).json() for name in ("rows.csv", "ROWS.CSV.gz")]
    assert "its columns are ['q', 'a']" in by_name[0]["detail"]
    assert by_name[0] == by_name[1]
    assert upload_file(client, comma).json()["detail"].startswith("line 1: not JSON")
    assert upload_file(client, comma, columns=columns).json()["format"] == "csv"
    by_type = client.post("/datasets", content=tab, headers={"content-type": "text/tab-separated-values"})
    assert "its columns are ['q,x', 'a']" in by_type.json()["detail"]
    # What the first line says comes before the name.
    assert upload_file(client, b"prompt\tcompletion\n1\t2\n", "rows.csv").json()["format"] == "tsv"
    assert upload_file(client, b'{"text": "a"}\n', "rows.csv").json()["format"] == "jsonl"
    assert upload_file(client, b"text\na\n", "rows.tsv").json()["format"] == "tsv"


def test_a_cell_of_a_structured_field_holds_json(client: TestClient, settings: Settings) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]

    assert upload_file(client, CONTAINERS["csv"]([{"messages": chat}])).status_code == 201

    assert [json.loads(line) for line in stored_lines(settings) if line] == [{"messages": chat}]
    faults = upload_file(client, b'messages,id\n"[{""role"": ""assistant""}]",1\n[,2\n,3\n').json()["errors"]
    assert [fault["field"] for fault in faults] == [
        "line 2: messages[0].content",
        "line 3: messages",
        "line 4: messages",
    ]


@pytest.mark.parametrize("container", CONTAINERS)
def test_columns_name_the_fields_that_rows_are_taken_from(
    client: TestClient, settings: Settings, container: str
) -> None:
    rows = [{"question": "2 + 2 =", "answer": " 4", "text": "another form", "id": "7"}]
    columns = {"prompt": "question", "completion": "answer"}

    response = upload_file(client, CONTAINERS[container](rows), f"rows.{container}", columns=json.dumps(columns))

    assert response.status_code == 201, response.text
    assert response.json()["columns"] == columns
    assert response.json()["contents"]["ignored_fields"] == ["id", "text"]
    assert [json.loads(line) for line in stored_lines(settings) if line] == [{"prompt": "2 + 2 =", "completion": " 4"}]


@pytest.mark.parametrize("container", ["jsonl", "json", "parquet"])
def test_columns_may_be_paths_and_may_be_a_field_of_the_form(client: TestClient, container: str) -> None:
    rows: list[dict[str, Any]] = [
        {"data": {"question": "a", "answers": {"first": "b"}}, "answers.first": "c"},
        {"data": {"question": "a"}, "answers.first": None},
        {"data": None, "answers.first": "c"},
    ]
    place = "row" if container == "parquet" else {"jsonl": "line", "json": "element"}[container]

    def post(columns: str, rows: Sequence[Mapping[str, Any]]) -> Any:
        form: Form = [("columns", (None, columns)), ("file", ("rows", CONTAINERS[container](rows)))]
        return client.post("/datasets", files=form)

    assert post('{"prompt": "data.question", "completion": "data.answers.first"}', rows[:1]).status_code == 201
    refused = post('{"prompt": "data.question", "completion": "answers.first"}', rows)
    assert [(fault["field"], fault["message"]) for fault in refused.json()["errors"]] == [
        (f"{place} 2: answers.first", "is missing: completion is to be taken from it"),
        (f"{place} 3: data.question", "is missing: prompt is to be taken from it"),
    ]


@pytest.mark.parametrize("container", ["jsonl", "json", "parquet"])
def test_what_lies_beside_a_path_is_refused_or_named_like_the_fields_of_a_row(
    client: TestClient, container: str
) -> None:
    inner = {"q": {"text": "a", "lang": "en"}, "a": "b", "id": 1, "weights": ""}
    columns = '{"prompt": "d.q.text", "completion": "d.a"}'

    response = upload_file(client, CONTAINERS[container]([{"d": inner}]), columns=columns)

    assert response.status_code == 201, response.text
    fields = set(response.json()["contents"]["ignored_fields"])
    assert fields == {"d.id", "d.q.lang", "d.weights"}
    for beside, place, reason in (
        ({"weight": 0}, "d.weight", "rows have no weight"),
        ({"q": {"text": "a", "loss_mask": [0]}}, "d.q.loss_mask", "a weight of 0 or 1"),
        ({"label": False}, "d.label", "preferences are not learned"),
        ({"system": "Be brief."}, "d.system", "give it among messages"),
    ):
        refused = upload_file(client, CONTAINERS[container]([{"d": inner | beside}]), columns=columns)
        [error] = refused.json()["errors"]
        assert error["field"].endswith(f" 1: {place}")
        assert reason in error["message"]


def test_tools_beside_a_path_to_messages_are_refused_until_they_are_mapped(client: TestClient) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    tools = [{"type": "function", "function": {"name": "weather"}}]
    content = CONTAINERS["jsonl"]([{"d": {"messages": messages, "tools": tools}}])

    refused = upload_file(client, content, columns='{"messages": "d.messages"}')
    accepted = upload_file(client, content, columns='{"messages": "d.messages", "tools": "d.tools"}')

    assert refused.json()["errors"] == [
        {"field": "line 1: d.tools", "message": "is not read here: name it for tools in columns"}
    ]
    assert accepted.status_code == 201, accepted.text
    assert accepted.json()["contents"]["ignored_fields"] == []


def test_rows_of_another_form_than_the_columns_lack_the_columns(client: TestClient) -> None:
    chat = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    refused = upload_file(client, chat + b'\n{"text": "a"}', columns='{"prompt": "question", "completion": "answer"}')
    assert [(fault["field"], fault["message"]) for fault in refused.json()["errors"]] == [
        ("line 1: question", "is missing: prompt is to be taken from it"),
        ("line 2: question", "is missing: prompt is to be taken from it"),
    ]


UNUSABLE_COLUMNS = [
    ("{", "is not JSON"),
    ("[" * 4000, "recursion"),
    ("[]", "expected an object"),
    ('{"question": "prompt"}', "'question' is no key of a row: expected completion, "),
    ('{"prompt": 5}', "prompt: expected the name of a column"),
    ('{"prompt": ""}', "prompt: expected the name of a column"),
    ('{"prompt": "%s"}' % ("a." * 10), "10 names"),
    ('{"prompt": "%s"}' % ("a" * 201), "200 characters"),
    ('{"prompt": "a", "text": "b"}', "are not keys of one form of row"),
    ('{"prompt": "\\u0000"}', "NUL"),
    ('{"prompt": "\\ud800"}', "surrogate"),
    (" " * 4097, "4096"),
]


def test_columns_that_cannot_be_used_are_refused_by_name(client: TestClient) -> None:
    for columns, message in UNUSABLE_COLUMNS:
        form: Form = [("file", ("rows", JSON_LINES)), ("columns", (None, columns))]
        for response in (client.post("/datasets", files=form), upload_file(client, b"{}", columns=columns)):
            assert response.status_code == 422
            [error] = response.json()["errors"]
            assert error["field"] == "columns"
            assert message in error["message"]


def test_columns_are_given_once(client: TestClient) -> None:
    form: Form = [("columns", (None, "{}")), ("file", ("rows", JSON_LINES))]

    in_query = client.post("/datasets", files=form, params={"columns": "{}"})
    in_form = client.post("/datasets", files=[form[0], *form])

    assert in_query.json()["errors"] == [
        {"field": "columns", "message": "is given twice, in the query and in the form"}
    ]
    assert in_form.json()["errors"] == [{"field": "columns", "message": "is given twice"}]


GZIP, ZSTD = COMPRESSIONS["gzip"], COMPRESSIONS["zstd"]
BIG = 2_000_000  # bytes, twice the limit
UNUSABLE_FILES = [
    (GZIP(b'{"text": "%s"}\n' % (b"x" * 1000) * 2000), "a", "expands to more than 1000000 bytes"),
    (ZSTD(b"[" + b" " * BIG), "a", "expands to more than 1000000 bytes"),
    (GZIP(parquet([{"text": "x" * 60_000}] * 90)), "a", "expands to more than 1000000 bytes"),
    (GZIP(b'{"text": "a"}\n')[:-4], "a", "cannot be decompressed as gzip"),
    (b"[" * 500_000, "a", "element 1: not usable JSON"),
    (b",".join(b"c%d" % number for number in range(100_000)), "a.csv", "line 1: is longer than 65536 bytes"),
    (b'text\na\n"b' + b"c\n" * 100_000, "a", "line 3: is longer than 65536 bytes"),
    (b"text\n" + b"a\n" * 101, "a", "holds more than 100 rows"),
]


def test_a_file_that_is_a_bomb_or_damaged_is_refused_and_says_why(settings: Settings, operator_key: str) -> None:
    limits = {"max_dataset_rows": 100, "max_upload_bytes": 1_000_000, "max_row_bytes": 65_536}
    with TestClient(create_app(settings.model_copy(update=limits)), headers=bearer(operator_key)) as client:
        for content, name, message in UNUSABLE_FILES:
            response = upload_file(client, content, name)

            assert response.status_code == 422, (message, response.text)
            assert message in response.json()["detail"]
    assert not list(settings.datasets_dir.rglob("*.*"))


def test_a_file_that_takes_too_long_to_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows").write_bytes(gzip.compress(b"\n" * 10**7) * 30)
    monkeypatch.setattr("api.datasets.isolation.CPU_SECONDS", 1)

    with pytest.raises(UnusableFile, match="cannot be read within 2048 MiB of memory and 1 s"):
        convert_file(tmp_path / "rows", tmp_path / "converted", ReadLimits(), ColumnMapping())


def test_a_reader_without_memory_to_start_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(parquet([{"text": "a"}]))

    with pytest.raises(UnusableFile, match="cannot be read within"):
        convert_file(tmp_path / "rows", tmp_path / "converted", ReadLimits(), ColumnMapping(), memory_bytes=2**20)


def test_a_fault_of_the_subprocess_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(JSON_LINES)
    unknown = cast(Container, "unknown")

    with capture_logs() as logs, pytest.raises(RuntimeError, match="the conversion ended with 1"):
        convert_file(tmp_path / "rows", tmp_path / "converted", ReadLimits(), ColumnMapping(), hint=unknown)

    [line] = logs
    assert line["returncode"] == 1
    assert "ValueError: 'unknown' is not a valid Container" in line["stderr"]
