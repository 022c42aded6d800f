"""Connections to the process that asked for a run: those that cannot prove to know its key get nowhere."""

import os
import socket
import struct
from contextlib import suppress
from multiprocessing import AuthenticationError
from pathlib import Path
from queue import Empty

import pytest

from greencore.agents import inbox as module
from greencore.agents.inbox import KEY_VARIABLE, SPARE_CONNECTIONS, Address, Inbox, connect
from greencore.agents.machines import OtherMachines

LOOPBACK = "127.0.0.1"


@pytest.fixture(params=["file", "port"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    return str(tmp_path / "socket") if request.param == "file" else (LOOPBACK, 0)


def test_messages_arrive_with_their_connection_and_its_end(address: Address) -> None:
    inbox = Inbox(address, connections=2)
    with connect(inbox.environment) as first, connect(inbox.environment) as second:
        second.send("second")
        theirs, message = inbox.get(timeout=10)
        assert message == "second"
        first.send("first")
        assert inbox.get(timeout=10)[1] == "first"
        theirs.send("answer")
        assert second.recv() == "answer"
    assert [inbox.get(timeout=10)[1] for _ in range(2)] == [None, None]
    inbox.close()


def test_closing_ends_connections(address: Address) -> None:
    inbox = Inbox(address, connections=1)
    with connect(inbox.environment) as connection:
        connection.send("here")
        inbox.get(timeout=10)
        inbox.close()
        with pytest.raises((EOFError, OSError)):
            connection.recv()


def test_a_wrong_key_is_refused_and_its_message_not_read(address: Address) -> None:
    inbox = Inbox(address, connections=1)
    with pytest.raises(AuthenticationError):
        connect({**inbox.environment, KEY_VARIABLE: "00" * 32})
    with pytest.raises(Empty):
        inbox.get(timeout=0.2)
    inbox.close()


def test_strangers_are_cut_off_and_leave_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """They fill the room, saying nothing or garbage, until their time is over."""
    monkeypatch.setattr(module, "PROOF_SECONDS", 1)
    inbox = Inbox((LOOPBACK, 0), connections=1)
    assert not isinstance(inbox.address, str)
    strangers = [socket.create_connection(inbox.address) for _ in range(2 * SPARE_CONNECTIONS)]
    strangers[0].sendall(struct.pack("!i", -1) + os.urandom(64))
    for stranger in strangers:
        stranger.settimeout(10)
        with stranger, suppress(ConnectionError):
            while stranger.recv(4096):  # the challenge, at first
                pass
    with connect(inbox.environment) as connection:
        connection.send("known")
        assert inbox.get(timeout=10)[1] == "known"
    inbox.close()


@pytest.mark.parametrize(
    ("count", "address", "message"),
    [(0, LOOPBACK, "count is 0"), (1, "192.0.2.1", "no network interface of this machine has the address '192.0.2.1'")],
)
def test_other_machines_are_checked(count: int, address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OtherMachines(count, address, lambda _: None)
