"""mkdocs hook: copies the benchmarks' pictures into the site; mkdocs loads each hook from a file."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
# As the page says it, which is read beside the results as well.
LINK = re.compile(r"\]\(\.\./benchmarks/results/(\w+\.svg)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """The site's files, with each picture under results/."""
    for picture in sorted(RESULTS.glob("*.svg")):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its links to results leading to where they are in the site."""
    return LINK.sub(r"](results/\1)", markdown)
