"""A run on two machines: where this user may, a machine of its own network namespace joins this one's run."""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import pytest

from greencore.agents.machines import Invitation, OtherMachines
from greencore.training.launch.launcher import ProcessesLost
from greencore.training.run import fine_tune
from tests.greencore.training.launch.test_launcher import Actor, arguments, train
from tests.greencore.training.process_runs import Recorder

JOINS = """
    import json, sys
    from greencore.agents.machines import Invitation, join_run
    sys.exit(not join_run(Invitation(**json.loads(sys.argv[1])), address=sys.argv[2]))
"""


@dataclass(frozen=True)
class Network:
    """The address of this machine, and of another, on which `prefix` runs a command."""

    ours: str
    theirs: str
    prefix: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A network namespace as another machine; where we may not make one, this machine under the same address."""
    name = f"gt{os.getpid()}"
    ours, theirs = "10.213.77.1", "10.213.77.2"
    commands = (
        f"ip netns add {name}",
        f"ip link add {name}a type veth peer name {name}b netns {name}",
        f"ip addr add {ours}/30 dev {name}a",
        f"ip link set {name}a up",
        f"ip -n {name} addr add {theirs}/30 dev {name}b",
        f"ip -n {name} link set {name}b up",
    )
    try:
        try:
            for command in commands:
                subprocess.run(command.split(), check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            yield Network("127.0.0.1", "127.0.0.1")
        else:
            yield Network(ours, theirs, ("ip", "netns", "exec", name))
    finally:
        for command in (f"ip link del {name}a", f"ip netns del {name}"):
            with contextlib.suppress(OSError):
                subprocess.run(command.split(), check=False, capture_output=True)


class Guests:
    """Machines that join the runs to which they are invited."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.joined = list[subprocess.Popen[bytes]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for guest in self.joined:
            guest.kill()
            guest.wait()

    def invite(self, invitation: Invitation) -> None:
        command = [sys.executable, "-c", textwrap.dedent(JOINS), json.dumps(asdict(invitation)), self._network.theirs]
        self.joined.append(subprocess.Popen([*self._network.prefix, *command], cwd=Path(__file__).parents[4]))

    def others(self) -> OtherMachines:
        return OtherMachines(1, self._network.ours, self.invite)


def test_two_machines_end_with_the_result_of_one(model_folder: Path, tmp_path: Path, network: Network) -> None:
    alone, both = Recorder(), Recorder()
    one = fine_tune(**arguments(model_folder, tmp_path / "one", alone, epochs=1))
    with Guests(network) as guests:
        two = train(model_folder, tmp_path / "two", both, processes=1, others=guests.others(), epochs=1)
        assert [guest.wait(60) for guest in guests.joined] == [0]
    assert both.selections == alone.selections
    assert both.losses == pytest.approx(alone.losses, rel=1e-4)
    assert one.after is not None
    assert two.after is not None
    assert two.after.loss == pytest.approx(one.after.loss, rel=1e-4)


def test_a_lost_machine_ends_the_run_of_the_other(model_folder: Path, tmp_path: Path, network: Network) -> None:
    guests = Guests(network)
    listener = Actor(lambda: guests.joined[0].kill())
    with guests, pytest.raises(ProcessesLost, match="was killed"):
        train(model_folder, tmp_path / "run", listener, processes=1, others=guests.others(), epochs=1000)
