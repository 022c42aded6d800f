"""Several machines that train one model: the first invites the others, each of which joins the run."""

import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from greencore.agents.agent import Machines, end_agent, has_ended, start_agent
from greencore.agents.inbox import Inbox
from greencore.host_network import find_free_port, find_interface

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Invitation:
    """What a machine needs to join one start of a run: JSON values. Who has it can take part: it is a secret.

    `processes` are those of each of the `machines`, whose agents meet at `host` and `port`. `environment` has the
    address and the key of the process that started the run.
    """

    run_id: str
    machines: int
    processes: int
    host: str
    port: int
    environment: Mapping[str, str]

    def of_first_machine(self) -> Machines:
        """Return the machines as the first one sees them."""
        return Machines(self.machines, self.run_id, self.host, self.port, self.host, is_first=True)

    def of_machine(self, address: str) -> Machines:
        """Return the machines as another one, with this address, sees them."""
        return Machines(self.machines, self.run_id, self.host, self.port, address, is_first=False)


@dataclass(frozen=True)
class OtherMachines:
    """The `count` machines that join a run beside this one, which they reach by its `address`.

    `invite` passes an invitation on to each of them, which then calls `join_run`. A run that is started once more has
    another one. Raises ValueError for a count below 1, and where no network interface has the address.
    """

    count: int
    address: str
    invite: Callable[[Invitation], None]

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}: expected at least one other machine")
        find_interface(self.address)

    def invite_to(self, inbox: Inbox, processes: int) -> Invitation:
        """Invite the others to a run that is about to start here, and return the invitation."""
        invitation = Invitation(
            run_id=str(uuid.uuid4()),
            machines=1 + self.count,
            processes=processes,
            host=self.address,
            port=find_free_port(self.address),
            environment=dict(inbox.environment),
        )
        self.invite(invitation)
        return invitation


def join_run(invitation: Invitation, *, address: str, check: Callable[[], None] = lambda: None) -> bool:
    """Take part in a run of another machine, which decides and writes, until it has ended; whether that end was good.

    `address` is this machine's. `check` is called twice a second, and may raise. No process is left behind. Raises
    ValueError where no network interface has the address.
    """
    with tempfile.TemporaryDirectory(prefix="greentune-run-") as folder:
        agent = start_agent(
            invitation.processes, folder, invitation.environment, machines=invitation.of_machine(address)
        )
        try:
            while not has_ended(agent):
                check()
                time.sleep(POLL_SECONDS)
        finally:
            code = end_agent(agent)
    return code == 0
