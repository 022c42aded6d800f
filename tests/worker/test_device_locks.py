"""Devices of a machine are locked by the job's process, and free once it has ended, also where it was killed."""

import subprocess
import sys
from pathlib import Path

from worker.device_locks import DeviceLocks

GPUS = ["GPU-a", "GPU-b", "GPU-c"]


def test_a_device_belongs_to_one_job_at_a_time(tmp_path: Path) -> None:
    first, second, third = (DeviceLocks(tmp_path) for _ in range(3))
    assert first.take(GPUS, 1, wait_seconds=0) == ("GPU-a",)
    assert second.take(GPUS, 2, wait_seconds=0) == ("GPU-b", "GPU-c")
    assert third.take(GPUS, 1, wait_seconds=0) is None
    first.close()
    assert third.take(GPUS, 1, wait_seconds=0) == ("GPU-a",)


def test_a_job_that_wants_more_than_is_free_takes_nothing(tmp_path: Path) -> None:
    first, second, third = (DeviceLocks(tmp_path) for _ in range(3))
    first.take(GPUS, 2, wait_seconds=0)
    assert second.take(GPUS, 2, wait_seconds=0) is None
    assert third.take(GPUS, 1, wait_seconds=0) == ("GPU-c",)


def test_the_devices_of_a_killed_process_come_free(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from worker.device_locks import DeviceLocks\n"
        "print(DeviceLocks(Path(sys.argv[1])).take(['GPU-a'], 1, wait_seconds=0), flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "('GPU-a',)\n"
        locks = DeviceLocks(tmp_path)
        assert locks.take(["GPU-a"], 1, wait_seconds=0) is None
        other.kill()
        assert locks.take(["GPU-a"], 1, wait_seconds=10) == ("GPU-a",)
