"""The elastic agent of torchrun, whose processes are forked from one that has loaded torch.

Loading torch and transformers takes 5 s of a core. A fork shares what is loaded, and its memory.
"""

import multiprocessing
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from multiprocessing import forkserver

PROGRAM = "greencore.training.launch.process"


def run_agent(entry: Callable[..., None], *arguments: str, processes: int, folder: str, preload: Sequence[str]) -> None:
    """Call `entry` in each of several processes that can reach each other (`torch.distributed`), until all have ended.

    They are forked from one that has imported the modules `preload`, which must neither initialise CUDA nor start a
    thread. `entry` has to be picklable; `folder` is for files of the agent. Raises ChildFailedError where a process
    fails; the others are ended then.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # torch then looks for a GPU without initialising CUDA
    multiprocessing.set_forkserver_preload(list(preload))
    forkserver.ensure_running()  # loads while this process loads the agent

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="forkserver",
        logs_specs=DefaultLogsSpecs(log_dir=folder),
    )
    elastic_launch(config, entry)(*arguments)


def run_process() -> None:
    """Train in this process, see `greencore.training.launch.process`."""
    from greencore.training.launch.process import main

    main()


if __name__ == "__main__":
    run_agent(run_process, processes=int(sys.argv[1]), folder=sys.argv[2], preload=[PROGRAM])
