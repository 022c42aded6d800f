"""Scripts in several processes of torchrun's agent, as a run on several GPUs has them."""

import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from greencore.agents.agent import run_agent


def start_processes(script: str, *arguments: str, processes: int, **options: Any) -> "subprocess.Popen[str]":
    """Start a script; `options` are those of `Popen`."""
    command = [sys.executable, __file__, str(processes), script, *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, **options)


def run_processes(script: str, *arguments: str, processes: int, seconds: float) -> str:
    """Run a script to its end, which must be a good one, and return what it printed."""
    with start_processes(script, *arguments, processes=processes, stdout=subprocess.PIPE) as started:
        try:
            printed, _ = started.communicate(timeout=seconds)
        finally:
            started.terminate()
    assert started.returncode == 0
    return printed


def find_processes(starter: int | None = None) -> dict[str, psutil.Process]:
    """Return the agent ("agent") and the processes, by rank, of a run that this process or `starter` has started."""
    found = {}
    for process in psutil.Process(starter).children(recursive=True):
        try:
            command, name = process.cmdline(), process.name()
        except psutil.Error:  # it is ending
            continue
        if "greencore.agents.agent" in command:
            found["agent"] = process
        elif name.startswith("greentune-"):
            found[name.removeprefix("greentune-")] = process
    return found


def run_script(script: str, *arguments: str) -> None:
    """Run a script in this process."""
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    processes, *rest = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        run_agent(run_script, *rest, processes=int(processes), folder=folder)
