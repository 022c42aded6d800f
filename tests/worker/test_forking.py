"""Forking of job processes from a worker that has loaded torch: no CUDA, no threads, no inherited locks."""

import json
import subprocess
import sys

import pytest

from worker.app import START_METHOD

pytestmark = pytest.mark.skipif(START_METHOD != "fork", reason="a job's process is spawned here")

ASKS_CUDA = ("_lazy_init", "device_count", "is_available", "current_device", "get_device_properties")
LOADED = f"""
import json, sys, threading, torch

asked = []
for name in {ASKS_CUDA}:
    setattr(torch.cuda, name, lambda *_, name=name: asked.append(name))

from worker.forking import preload_before_fork
preload_before_fork()
print(json.dumps([asked, threading.active_count(), "greencore.training.run" in sys.modules]))
"""
# A big multiplication takes all the threads that torch has, in the parent's pool and in the fork's.
FORKED = """
import hashlib, os, torch
from worker.forking import preload_before_fork, block_forking

def computes():
    torch.manual_seed(1)
    product = torch.randn(700, 700) @ torch.randn(700, 700)
    return hashlib.sha256(product.numpy().tobytes()).hexdigest()

preload_before_fork()
for _ in range(2):
    print(os.waitstatus_to_exitcode(os.waitpid(os.fork() or (print(computes(), flush=True), os._exit(0)), 0)[1]))
print(computes())
"""
BLOCKED = """
import os, threading, time
from worker.forking import preload_before_fork, block_forking

preload_before_fork()
entered = threading.Event()

def holds():
    with block_forking():
        entered.set()
        time.sleep(0.5)

threading.Thread(target=holds).start()
entered.wait()
began = time.monotonic()
child = os.fork()
if child == 0:
    with block_forking():
        os._exit(0 if time.monotonic() - began > 0.4 else 1)
with block_forking():
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_preloading_uses_no_cuda_and_starts_no_thread() -> None:
    asked, threads, loaded = json.loads(_run(LOADED))
    assert (asked, threads, loaded) == ([], 1, True)


def test_forks_compute_what_their_parent_computes() -> None:
    first, code, second, other_code, parents = _run(FORKED).split()
    assert first == second == parents
    assert code == other_code == "0"


def test_no_process_is_forked_inside_block_forking_and_the_fork_can_enter_it() -> None:
    assert _run(BLOCKED) == "0\n"


def _run(program: str) -> str:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return ran.stdout
