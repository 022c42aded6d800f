"""Word check of `make lint`: lists every use of a word that docs/glossary.md replaces, and fails where there is one."""

import os
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
CHECKED = ("*.py", "*.md", "*.html", "*.jinja", "*.js", "*.toml", "*.yml", "*.json", ".env.example", "Makefile")
# The glossary and the check's test quote the words; results are records of what was measured.
EXEMPT = ("docs/glossary.md", "tests/docs/test_words.py", "benchmarks/results/*", "migrations/versions/*")
UNTRACKED_FOLDERS = ("var", "build", "__pycache__")


def banned_words(glossary: str) -> list[str]:
    """The words in the first column of the table under "Words that are not used"."""
    section = glossary.partition("## Words that are not used")[2]
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


def find_banned_words(words: list[str], texts: dict[str, str]) -> list[str]:
    """`path:line: word` for each use; a word matches whole and in any case, and may be wrapped over two lines."""
    pattern = re.compile(
        r"(?<!\w)(" + "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in words) + r")(?!\w)", re.I
    )
    return [
        f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[1].split())}"
        for path, text in texts.items()
        for match in pattern.finditer(text)
    ]


def checked_files(root: Path) -> Iterator[Path]:
    """Files of the project in which words are checked; hidden folders and those that git ignores are left out."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(n for n in subfolders if not n.startswith(".") and n not in UNTRACKED_FOLDERS)
        for name in sorted(names):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            if any(fnmatch(name, p) for p in CHECKED) and not any(fnmatch(relative, p) for p in EXEMPT):
                yield path


def main() -> int:
    """The exit status: 1 where a word was found."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in checked_files(ROOT)}
    found = find_banned_words(banned_words(GLOSSARY.read_text()), texts)
    for use in found:
        sys.stdout.write(f"{use}\n")
    if found:
        sys.stdout.write(f"{len(found)} use(s) of words that docs/glossary.md replaces\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
