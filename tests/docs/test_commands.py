"""Commands of the README, the tutorial and a backup beside `serve`, run as a reader would, against a real service.

Blocks that are marked `bash` are run, in their order, in one shell for each page. What a reader has to fill in is
filled in here: the service's port and the key that it showed.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from greencore.host_network import find_free_port

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
KEY = re.compile(r"gtk_[\w-]+")


@dataclass(frozen=True)
class Serving:
    """A `greentune serve`, as its terminal shows it."""

    folder: Path
    port: int
    key: str


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account can be let into: pytest closes its own to all others whenever it begins."""
    with tempfile.TemporaryDirectory(prefix="greentune-docs-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def serving(folder: Path, pretrained: Path) -> Iterator[Serving]:
    """The service in a folder that looks like the repository, with the model converted already."""
    for name in ("cli", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")  # as it is, curl is content with any answer
    (folder / "var" / "models").mkdir(parents=True)
    (folder / "var" / "models" / pretrained.name).symlink_to(pretrained)
    port = find_free_port("127.0.0.1")
    command = [sys.executable, "-m", "cli.main", "serve", "--port", str(port)]
    environment = _environment(folder) | {"GREENTUNE_SITE": "FR"}
    log = folder / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "GreenTune is at" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        [key] = KEY.findall(log.read_text())
        yield Serving(folder, port, key)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("page", ["docs/tutorial.md", "README.md", "docs/how-to/backup.md"])
def test_every_command_does_what_the_page_says(page: str, serving: Serving) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    script = "set -euo pipefail\n" + "\n".join(blocks)
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{serving.port}").replace("gtk_…", serving.key)
    assert "…" not in script, "a reader would have to fill something in that this test does not"
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        cwd=serving.folder,
        env=_environment(serving.folder),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"


def _environment(folder: Path) -> dict[str, str]:
    """This one without what names a service, and with the virtual environment's commands, as `make serve` has them."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GREENTUNE_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    return kept | {"CURL_HOME": str(folder), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
