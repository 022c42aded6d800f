"""The word check finds what the glossary replaces, and its list is the glossary's."""

import pytest

from docs.words import GLOSSARY, ROOT, banned_words, checked_files, find_banned_words


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


def test_code_documents_and_pages_are_checked_and_the_glossary_is_not() -> None:
    checked = {path.relative_to(ROOT).as_posix() for path in checked_files(ROOT)}
    assert {"cli/main.py", "README.md", ".env.example", "api/templates/jobs.html", "api/static/js/poll.js"} <= checked
    assert "docs/glossary.md" not in checked
