"""The page about the Python client: it names every method, and its example reads fields that there are."""

import re
from pathlib import Path

from greentune.client import Client
from greentune.models import Artifact, Epoch

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "client.md").read_text()


def test_every_method_is_named_and_no_other() -> None:
    methods = {name for name in vars(Client) if not name.startswith("_")} - {"close", "url"}
    rows = [line.split("|")[2] for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert {name for row in rows for name in re.findall(r"`(\w+)[`(]", row)} == methods


def test_the_example_reads_fields_that_there_are() -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    compile(example, "client.md", "exec")
    assert set(re.findall(r"\bepoch\.(\w+)", example)) <= Epoch.model_fields.keys()
    assert set(re.findall(r"\bartifact\.(\w+)", example)) <= Artifact.model_fields.keys()
    assert set(re.findall(r"\bclient\.(\w+)\(", example)) <= vars(Client).keys()
