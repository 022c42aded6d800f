"""Whole runs in several processes under torchrun: a script, and the function that starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from greencore.dataset import PromptRow
from greencore.settings.hyperparameters import Hyperparameters, SettingUnsupported
from greencore.training.listener import TrainingListener
from greencore.training.methods.epoch_ledger import EpochReport
from greencore.training.run import fine_tune
from tests.torchrun import start_processes
from tests.traces import remember_traces

# Rows of several lengths and a short last step, so that the processes' parts differ.
ROWS = [PromptRow(f"w{1 + n} w2 w3 w4" + " w5" * (n % 3), " w7 w8 w9" + " w10" * (n % 4)) for n in range(22)]
RHO = (0.6, 0.8, 0.6)


class Recorder(TrainingListener):
    """Records losses, selections and a refusal, and stops the run after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.losses: dict[int, float] = {}
        self.selections: dict[int, list[str]] = {}
        self.refusal: str | None = None  # of a setting, as the run was set up

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.losses[done] = loss

    def on_epoch_finished(self, report: EpochReport, *, train_loss: float, eval_loss: float | None) -> None:
        self.selections[report.epoch] = list(report.tensors)

    def should_stop(self) -> bool:
        return self.stop_after is not None and self.stop_after in self.losses


def run(
    model_folder: Path, folder: Path, *, method: str = "greentrainer", stop_after: int | None = None, **settings: Any
) -> Recorder:
    """Run in this process's part of a run, whose folder is `folder`."""
    recorder = Recorder(stop_after)
    given = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-3, "seed": 0, "max_new_tokens": 2, **settings}
    fine_tune(
        model_folder=model_folder,
        rows=ROWS,
        hyperparameters=Hyperparameters.model_validate(given),
        rho=RHO.__getitem__,
        highest_rho=max(RHO),
        method=method,  # type: ignore[arg-type]
        folder=folder,
        listener=recorder,
    )
    return recorder


def launch(runs: list[dict[str, Any]], *, processes: int) -> list[Recorder]:
    """Run the given runs (arguments of `run`) one after the other; what the first process recorded of each."""
    output = Path(runs[0]["folder"]).with_suffix(".recorded")
    output.mkdir()
    with start([{**one, "record": str(output / str(number))} for number, one in enumerate(runs)], processes) as started:
        assert started.wait(300) == 0
    found = []
    for number in range(len(runs)):
        recorder = Recorder()
        losses, selections, recorder.refusal = json.loads((output / str(number)).read_text())
        recorder.losses = {int(step): loss for step, loss in losses.items()}
        recorder.selections = {int(epoch): names for epoch, names in selections.items()}
        found.append(recorder)
    return found


def start(runs: list[dict[str, Any]], processes: int) -> "subprocess.Popen[str]":
    """Start the runs."""
    return start_processes(__file__, json.dumps(runs, default=str), processes=processes)


def main() -> None:
    for one in json.loads(sys.argv[1]):
        record = one.pop("record", None)
        recorder = Recorder()
        try:
            recorder = run(Path(one.pop("model_folder")), Path(one.pop("folder")), **one)
        except SettingUnsupported as error:
            recorder.refusal = str(error)
        if record is not None and os.environ["RANK"] == "0":
            Path(record).write_text(json.dumps([recorder.losses, recorder.selections, recorder.refusal]))


if __name__ == "__main__":
    import torch

    with remember_traces():
        main()
    # Left to the interpreter's end, the group's threads may be torn down while they run, which aborts the process.
    torch.distributed.destroy_process_group()
