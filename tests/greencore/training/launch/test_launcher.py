"""A run that one process starts in several: its listener stays there, and none of them is left, whatever happens."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from greencore.agents.machines import OtherMachines
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.batches.micro_batches import HalvedMicroBatch
from greencore.training.launch.launcher import ProcessesLost, fine_tune_in_processes
from greencore.training.models.whole_groups import FILE_NAME
from greencore.training.run import TrainingResult, fine_tune
from tests.greencore.training.process_runs import ROWS, Recorder
from tests.torchrun import find_processes

RHO = (0.6, 0.8)
SETTINGS = {
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "seed": 0,
    "micro_batch_size": 1,
    "max_new_tokens": 2,
}


class Actor(Recorder):
    """Does something once, after a step."""

    def __init__(self, act: Callable[[], object], *, step: int = 2) -> None:
        super().__init__()
        self._act, self._step = act, step

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        super().on_step_finished(done=done, steps=steps, loss=loss)
        if done == self._step:
            self._act()


def train(
    model: Path,
    folder: Path,
    listener: Recorder,
    *,
    processes: int = 2,
    silence: float = 300,
    others: OtherMachines | None = None,
    **settings: Any,
) -> TrainingResult:
    run = arguments(model, folder, listener, **settings)
    return fine_tune_in_processes(processes, **run, silence_seconds=silence, others=others)


def arguments(model: Path, folder: Path, listener: Recorder, **settings: Any) -> dict[str, Any]:
    hyperparameters = Hyperparameters.model_validate(SETTINGS | settings)
    return {
        "model_folder": model,
        "rows": ROWS,
        "hyperparameters": hyperparameters,
        "folder": folder,
        "listener": listener,
        "rho": lambda epoch: RHO[epoch % 2],
        "highest_rho": max(RHO),
    }


def test_the_run_is_that_of_one_process_also_stopped_and_resumed(model_folder: Path, tmp_path: Path) -> None:
    alone, first, second = Recorder(), Recorder(stop_after=7), Recorder()
    one = fine_tune(**arguments(model_folder, tmp_path / "one", alone))
    assert not train(model_folder, tmp_path / "two", first).completed
    two = train(model_folder, tmp_path / "two", second)
    assert first.losses | second.losses == pytest.approx(alone.losses, rel=1e-4)
    assert min(second.losses) == max(first.losses) + 1
    assert second.selections == {1: alone.selections[1]}
    assert two.artifact == tmp_path / "two" / "artifacts"
    assert one.after is not None
    assert two.after is not None
    assert two.after.loss == pytest.approx(one.after.loss, rel=1e-4)
    assert find_processes() == {}


def test_a_killed_torchrun_leaves_no_process(model_folder: Path, tmp_path: Path) -> None:
    """That a killed process ends the run, `tests/chaos/test_gpus.py` tries."""
    started = dict[str, psutil.Process]()

    def kill() -> None:
        started.update(find_processes())
        started["agent"].kill()

    with pytest.raises(ProcessesLost, match="torchrun"):
        train(model_folder, tmp_path / "run", Actor(kill), epochs=1000)
    assert set(started) == {"0", "1", "agent"}
    _, alive = psutil.wait_procs(started.values(), timeout=10)  # until their new parent has taken note
    assert alive == []


def test_a_process_that_hangs_ends_the_run(model_folder: Path, tmp_path: Path) -> None:
    listener = Actor(lambda: find_processes()["1"].suspend())
    with pytest.raises(ProcessesLost, match="have said nothing for"):
        # Long enough for the start, which says nothing either.
        train(model_folder, tmp_path / "run", listener, silence=20, epochs=1000)
    assert find_processes() == {}


def test_what_the_listener_raises_ends_the_run(model_folder: Path, tmp_path: Path) -> None:
    class LeaseLost(Exception):
        """An error that the run's processes could not load."""

    def lose() -> None:
        raise LeaseLost

    with pytest.raises(LeaseLost):
        train(model_folder, tmp_path / "run", Actor(lose), epochs=1000)
    assert find_processes() == {}


def test_no_process_outlives_the_one_that_started_it(model_folder: Path, tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from tests.greencore.training.launch.test_launcher import Actor, train
        train(Path(sys.argv[1]), Path(sys.argv[2]), Actor(lambda: print("at work", flush=True)), epochs=1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(model_folder), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4]) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "at work\n"
        started = find_processes(starter.pid)
        starter.send_signal(signal.SIGKILL)
    assert len(started) == 3
    _, alive = psutil.wait_procs(started.values(), timeout=60)
    assert alive == []


@pytest.mark.parametrize(("rows", "halvings"), [(None, [HalvedMicroBatch(2, 1)]), (1, [])])
def test_where_memory_runs_out_in_one_process_all_start_again_with_half_the_rows_and_nothing_kept_whole(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: int | None,
    halvings: list[HalvedMicroBatch],
) -> None:
    # The processes have torch's error in place of a GPU's: rank 1 has no memory for two rows at once, and none for
    # tensors kept whole.
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import os
            import torch
            from greencore.training.batches.micro_batches import MicroBatchCollator
            collate = MicroBatchCollator.collate_micro_batches
            has_run_out = os.path.exists(os.environ["OUT_OF_MEMORY_FILE"])
            def collate_what_fits(self, rows):
                if os.environ["RANK"] == "1" and (self.size > 1 or not has_run_out):
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                return collate(self, rows)
            MicroBatchCollator.collate_micro_batches = collate_what_fits
            """
        )
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[4])]))
    monkeypatch.setenv("OUT_OF_MEMORY_FILE", str(tmp_path / "two" / FILE_NAME))
    halved = list[HalvedMicroBatch]()

    class Halving(Recorder):
        def on_micro_batch_halved(self, one: HalvedMicroBatch) -> None:
            halved.append(one)

    alone, found = Recorder(), Halving()
    settings: dict[str, Any] = {"epochs": 1, "micro_batch_size": rows, "eval_share": 0}
    fine_tune(**arguments(model_folder, tmp_path / "one", alone, **settings))
    train(model_folder, tmp_path / "two", found, **settings)
    assert halved == halvings
    assert found.losses == pytest.approx(alone.losses, rel=1e-4)
