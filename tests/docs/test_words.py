"""The word check finds what the glossary replaces, and its list is the glossary's."""

import pytest

from docs.words import GLOSSARY, banned_words, find_banned_words


def test_the_words_are_those_of_the_glossary() -> None:
    words = banned_words(GLOSSARY.read_text())
    assert {"whoever", "tells of", "by now"} <= set(words)
    assert "estimate" not in words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("first\nWhoever asks", ["a.py:2: Whoever"]),
        ("known by\n    now", ["a.py:1: by now"]),
        ("standstill, outlives, likewise_", []),
        ("", []),
    ],
)
def test_a_word_is_found_whole_in_any_case_and_over_a_line_break(text: str, found: list[str]) -> None:
    assert find_banned_words(["whoever", "by now", "stands", "likewise"], {"a.py": text}) == found
