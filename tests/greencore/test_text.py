"""Texts that can be stored, and names that can be shown."""

import pytest
from pydantic import TypeAdapter, ValidationError

from greencore.text import MAX_DISPLAY_NAME, DisplayName

NAMES: TypeAdapter[str] = TypeAdapter(DisplayName)


@pytest.mark.parametrize("name", ["a", "Tickets, 3rd try", "Wörter – größer", "訓練 🌱", "x" * MAX_DISPLAY_NAME])
def test_a_line_of_printable_characters_is_a_name(name: str) -> None:
    assert NAMES.validate_python(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "at least 1"),
        ("x" * (MAX_DISPLAY_NAME + 1), "at most 100"),
        (" ", "begins or ends with a space"),
        ("night ", "begins or ends with a space"),
        ("two\nlines", "U+000A"),
        ("bell\a", "U+0007"),
        ("NUL\0", "U+0000"),
        ("right to left \u202e", "U+202E"),
        ("half \ud800", "valid string"),
    ],
)
def test_any_other_text_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        NAMES.validate_python(name)
    assert message in str(caught.value)
