"""Scripts in several processes that torchrun starts, as a run on several GPUs has them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


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
