"""The elastic agent of torchrun, one on each machine of a run, whose processes are forked from one that has loaded
torch.

Loading torch and transformers takes 5 s of a core. A fork shares what is loaded, and its memory.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from multiprocessing import forkserver

import psutil

from greencore.host_network import find_interface
from greencore.host_processes import kill_process_group, wait_until_gone

AGENT = "greencore.agents.agent"
PRELOADED = "greencore.agents.preloaded"
# In which the agents of all machines have to have met.
MEETING_SECONDS = 300
END_SECONDS = 30.0
# Of the libraries that connect the processes, which otherwise choose by the machine's name.
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@dataclass(frozen=True)
class Machines:
    """The machines of a run, this one among them: their number, and where the agent of the first one is met.

    `address` is this machine's, by which the others reach it.
    """

    count: int
    run_id: str
    host: str
    port: int
    address: str
    is_first: bool


def start_agent(
    processes: int, folder: str, environment: Mapping[str, str], machines: Machines | None = None
) -> "subprocess.Popen[bytes]":
    """Start an agent whose processes run `greencore.training.launch.process`, in a session of its own.

    It ends all of them, and itself, once the starting process closes its standard input or ends. `folder` is for its
    files; `environment` is theirs beside this process's, whose OMP_NUM_THREADS is by default a share of the cores.
    """
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    network = {} if machines is None else dict.fromkeys(INTERFACE_VARIABLES, find_interface(machines.address))
    arguments = json.dumps([processes, folder, machines and asdict(machines)])
    return subprocess.Popen(
        [sys.executable, "-m", AGENT, arguments],
        env={"OMP_NUM_THREADS": threads, **network, **os.environ, **environment},
        stdin=subprocess.PIPE,
        start_new_session=True,  # signals to this process and its terminal are its own: it ends the others
    )


def has_ended(agent: "subprocess.Popen[bytes]") -> bool:
    """Whether an agent has ended; until `end_agent`, no other process can have its number, which is its group's too."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return agent.returncode is not None or os.waitid(os.P_PID, agent.pid, options) is not None


def end_agent(agent: "subprocess.Popen[bytes]") -> int:
    """End an agent and its processes, also those that it has left behind; return its exit code."""
    processes = [process for process in psutil.process_iter() if _is_of_group(process, agent.pid)]
    kill_process_group(agent.pid)
    assert agent.stdin is not None
    agent.stdin.close()
    code = agent.wait()
    wait_until_gone(processes, END_SECONDS)
    return code


def run_agent(
    entry: Callable[..., None],
    *arguments: str,
    processes: int,
    folder: str,
    machines: Machines | None = None,
) -> None:
    """Call `entry` in each of several processes that can reach each other (`torch.distributed`), until all have ended.

    `entry` has to be picklable; `folder` is for files of the agent. With several machines, each of which calls this,
    `processes` are those of one. Raises ChildFailedError where a process fails; the others are ended then.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # here, too, CUDA is not to be initialised
    multiprocessing.set_forkserver_preload([PRELOADED])
    forkserver.ensure_running()  # loads while this process loads the agent

    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    here = machines or Machines(1, str(uuid.uuid4()), "localhost", 0, "localhost", is_first=True)
    config = LaunchConfig(
        min_nodes=here.count,
        max_nodes=here.count,
        nproc_per_node=processes,
        run_id=here.run_id,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{here.host}:{here.port}",
        rdzv_configs={
            "is_host": str(here.is_first),
            "read_timeout": MEETING_SECONDS,
            "join_timeout": MEETING_SECONDS,
        },
        max_restarts=0,
        start_method="forkserver",
        local_addr=None if machines is None else here.address,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
    )
    elastic_launch(config, entry)(*arguments)


def run_process() -> None:
    """Train in this process, see `greencore.training.launch.process`."""
    from greencore.training.launch.process import main

    main()


def _is_of_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group
    except ProcessLookupError:
        return False


def _end_with_starter() -> None:
    """End this process and all that it has started once no process holds the other end of its standard input."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    processes, folder, machines = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()
    run_agent(
        run_process,
        processes=processes,
        folder=folder,
        machines=None if machines is None else Machines(**machines),
    )


if __name__ == "__main__":
    main()
