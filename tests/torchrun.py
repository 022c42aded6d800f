"""Scripts in several processes that torchrun starts, as a run on several GPUs has them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil


def start_processes(script: str, *arguments: str, processes: int, **options: Any) -> "subprocess.Popen[str]":
    """Start a script; `options` are those of `Popen`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, script, *arguments], env=environment, text=True, **options)


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
    """Return `torchrun` ("agent") and the processes, by rank, of a run that this process or `starter` has started."""
    found = {}
    for process in psutil.Process(starter).children(recursive=True):
        try:
            command, environment = process.cmdline(), process.environ()
        except psutil.Error:  # it is ending
            continue
        if "torch.distributed.run" in command:
            found["agent"] = process
        elif "greencore.training.launch.process" in command:
            found[environment["RANK"]] = process
    return found
