"""A worker takes the next job as soon as the process of the last one has ended."""

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from runtime.ids import new_id
from runtime.settings import Settings
from worker.app import START_METHOD, make_app, send_task

pytestmark = pytest.mark.skipif(START_METHOD != "fork", reason="a job's process is spawned here")

MESSAGES = 3
# A worker with one task, whose process closes the pipe by which its parent knows of its end, well before it ends. It
# writes to two pipes: the other one takes its results.
WORKER = """
import fcntl, os, pathlib, stat, sys, time
from billiard.process import current_process
from worker.app import app

@app.task(name="seems_ended")
def seems_ended(times):
    began = time.time()
    results = current_process().outq._writer.fileno()
    [watched] = [fd for fd in range(3, 256) if fd != results and is_written_to(fd)]
    os.close(watched)
    with pathlib.Path(times).open("a") as lines:
        print(began, file=lines)
    time.sleep(0.3)

def is_written_to(fd):
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False
    return is_pipe and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY

app.conf.include = []
app.worker_main(["worker", "--queues", sys.argv[1], "--without-gossip", "--without-mingle", "--loglevel", "WARNING"])
"""


def test_the_next_job_does_not_wait_for_celerys_timer(settings: Settings, tmp_path: Path) -> None:
    times, queue = tmp_path / "times", new_id("queue")
    worker = subprocess.Popen([sys.executable, "-c", WORKER, queue], env=settings.environment())
    try:
        with closing(make_app(settings)) as celery:
            for _ in range(MESSAGES):
                send_task(celery, "seems_ended", str(times), queue=queue)
        until = time.monotonic() + 60
        while len(began := _read(times)) < MESSAGES and time.monotonic() < until:
            assert worker.poll() is None, "the worker has ended"
            time.sleep(0.05)
    finally:
        worker.terminate()
        worker.wait(timeout=20)
    _, second, third = began
    assert third - second < 2.0  # Celery's timer is of 5 s, and has just let the second begin


def _read(times: Path) -> list[float]:
    return [float(line) for line in times.read_text().splitlines()] if times.exists() else []
