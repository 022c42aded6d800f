"""Reads a Dockerfile, and does on this machine what one of its stages does: its copies and its commands."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    """One instruction, such as `RUN` with its command, its continuation lines joined."""

    name: str
    text: str


@dataclass(frozen=True)
class Stage:
    """The instructions between one `FROM` and the next; `name` is empty where it has none."""

    image: str
    name: str
    instructions: Sequence[Instruction]

    def texts(self, name: str) -> list[str]:
        return [instruction.text for instruction in self.instructions if instruction.name == name]


def stages(dockerfile: Path) -> list[Stage]:
    """The stages of a Dockerfile, in order."""
    found: list[tuple[list[str], list[Instruction]]] = []
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, text = line.split(maxsplit=1)
        if name == "FROM":
            found.append((text.split(), []))
        else:
            found[-1][1].append(Instruction(name, " ".join(text.split())))
    return [Stage(words[0], words[2] if len(words) > 2 else "", kept) for words, kept in found]


def replay_build(dockerfile: Path, root: Path) -> Path:
    """Do what the builder's stage does, below `root`, and give the environment that the last stage would take.

    Paths of the container lie below `root`; its Python is a fresh environment of this one, with no package but pip.
    """
    [builder, last] = stages(dockerfile)
    base = root / "base"
    subprocess.run([sys.executable, "-m", "venv", base], check=True)
    # So that no folder of the checkout, nor what is installed for the tests, takes the place of what is missing.
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))},
        "PATH": f"{base / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    folder = root
    for instruction in builder.instructions:
        if instruction.name == "WORKDIR":
            folder = root / instruction.text.removeprefix("/")
            folder.mkdir(parents=True)
        elif instruction.name == "COPY":
            *sources, target = instruction.text.split()
            _copy(sources, folder, target)
        elif instruction.name == "RUN":
            command = instruction.text.replace(" /opt/", f" {shlex.quote(str(root))}/opt/")
            done = subprocess.run(
                ["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"RUN {command}\n{done.stdout}\n{done.stderr}"
    [taken] = [text.split()[-1] for text in last.texts("COPY") if text.startswith("--from=builder")]
    return root / taken.removeprefix("/")


def _copy(sources: Sequence[str], folder: Path, target: str) -> None:
    for source in sources:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / source, folder / target)


def run_python(environment: Path, program: str, *, cwd: Path, variables: Mapping[str, str]) -> str:
    """What a program prints in an environment, away from the checkout; fails with what it said on stderr."""
    done = subprocess.run(
        [environment / "bin" / "python", "-c", program],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
