"""YAML as the core schema has it."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.yaml_text import YamlError, format_yaml, parse_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(alphabet=st.characters(codec="utf-8")) | st.sampled_from(
    ["NO", "on", "1e-4", "~", "null", "0x1", "12:30"]
)
VALUES = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


def test_words_and_times_are_texts_and_numbers_are_numbers() -> None:
    assert parse_yaml("zone: NO\npacking: on\nrate: 1e-4\nat: 2026-12-01T10:00:00Z\nnothing: ~\nsure: true") == {
        "zone": "NO",
        "packing": "on",
        "rate": 0.0001,
        "at": "2026-12-01T10:00:00Z",
        "nothing": None,
        "sure": True,
    }


def test_json_is_yaml() -> None:
    assert parse_yaml('{"name": "\\ud83c\\udf31"}') == {"name": "🌱"}
    assert parse_yaml('{"a": [1, 2.5, "x"], "b": {"c": false}}') == {"a": [1, 2.5, "x"], "b": {"c": False}}


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
@example({"NaN": None})
def test_what_is_written_is_read_back(body: dict[str, object]) -> None:
    assert parse_yaml(format_yaml(body)) == body


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "line 2: aliases are not supported"),
        ("a: 1\na: 2", "line 2: 'a' is there twice"),
        ("1: 2", "line 1: key 1 is not a text"),
        ("a: [", "line 1: expected the node content"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: could not determine a constructor"),
        ("[" * 5000, "recursion"),
        (f"a: {'9' * 5000}", "4300 digits"),
        ("a: \0", "#x0000"),
        ('{"a": NaN}', "NaN is no number"),
        ("a: 1e999", "Out of range float values"),
        ('{"a": 1e999}', "Out of range float values"),
        ("a: !!timestamp 2026-12-01", "date is not JSON serializable"),
        ("a: !!binary aGk=", "bytes is not JSON serializable"),
        ("a: !!set {b}", "set is not JSON serializable"),
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('a: "\\ud83c"', "half a surrogate pair"),
        ("a: 1\n---\nb: 2", "another document"),
    ],
)
def test_what_a_file_of_settings_has_no_use_for_is_refused(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert message in str(caught.value)
