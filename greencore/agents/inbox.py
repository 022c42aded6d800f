"""Messages of a run's processes: a socket, of this machine alone or of its network, on which they connect."""

import json
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from queue import SimpleQueue
from typing import Any

Address = str | tuple[str, int]  # a file of this machine, or a host and a port

# In the environment of a process: the address, and the key that both sides prove to know before they read more.
ADDRESS_VARIABLE = "GREENTUNE_RUN_ADDRESS"
KEY_VARIABLE = "GREENTUNE_RUN_KEY"
# Connections beside those of the processes: of others that find the port, and cannot prove to know the key.
SPARE_CONNECTIONS = 16
PROOF_SECONDS = 10
END_SECONDS = 30.0
RETRY_SECONDS = 0.1
# A machine that vanishes closes no connection: it is asked for a sign of life after so many seconds, and given up after
# so many unanswered ones.
KEEP_ALIVE_SECONDS, KEEP_ALIVE_PROBES = 10, 4


class Inbox:
    """Receives messages of a run's processes; `get` returns each with its connection, None at a connection's end."""

    def __init__(self, address: Address, *, connections: int) -> None:
        """Listen at an address; a port of 0 is any free one."""
        self._key, self._messages = secrets.token_bytes(32), SimpleQueue[tuple[Connection, Any]]()
        self._listener = Listener(address, backlog=connections)
        self._room = threading.BoundedSemaphore(connections + SPARE_CONNECTIONS)
        self._open, self._closed, self._lock = set[Connection](), False, threading.Lock()
        self._accepting = threading.Thread(target=self._accept, name="run-accept", daemon=True)
        self._accepting.start()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._listener.address  # type: ignore[no-any-return]

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment to `connect`."""
        return {ADDRESS_VARIABLE: json.dumps(self.address), KEY_VARIABLE: self._key.hex()}

    def get(self, *, timeout: float) -> tuple[Connection, Any]:
        """Return the next message. Raises `queue.Empty`."""
        return self._messages.get(timeout=timeout)

    def close(self) -> None:
        """Close all connections, after which the processes end."""
        self._closed = True
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        with suppress(OSError), socket.socket(family) as waker:  # nothing else interrupts an `accept`
            waker.connect(self.address)
        self._accepting.join(END_SECONDS)
        self._listener.close()
        with self._lock:
            for connection in self._open:  # a thread waits for messages on each, and closes it
                with suppress(OSError), _as_socket(connection) as link:
                    link.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # of one connection, or since too many files are open
                time.sleep(RETRY_SECONDS)
                continue
            if self._closed:
                connection.close()
                return
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._read, args=(connection,), name="run-read", daemon=True).start()

    def _read(self, connection: Connection) -> None:
        known = False
        try:
            _keep_alive(connection)
            _limit_waiting(connection, PROOF_SECONDS)
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            _limit_waiting(connection, 0)
            known = True
            while True:
                self._messages.put((connection, connection.recv()))
        except (EOFError, OSError, AuthenticationError):
            if known:
                self._messages.put((connection, None))
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.close()
            self._room.release()


def connect(environment: Mapping[str, str]) -> Connection:
    """Connect to the inbox that an environment names."""
    address = json.loads(environment[ADDRESS_VARIABLE])
    connection: Connection = Client(
        address if isinstance(address, str) else tuple(address), authkey=bytes.fromhex(environment[KEY_VARIABLE])
    )
    _keep_alive(connection)
    return connection


def send(connection: Connection, message: Any) -> None:
    """Send a message; the end of a process that is not there to receive it is read from its connection."""
    with suppress(OSError):
        connection.send(message)


def _keep_alive(connection: Connection) -> None:
    """Have the end of a machine at the other end noticed as that of the connection."""
    with _as_socket(connection) as link:
        if link.family == socket.AF_UNIX:
            return
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_PROBES)
        # What is sent into the void is given up in the same time.
        unanswered_ms = 1000 * KEEP_ALIVE_SECONDS * (1 + KEEP_ALIVE_PROBES)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unanswered_ms)


def _limit_waiting(connection: Connection, seconds: int) -> None:
    """Give up reading what does not arrive within some seconds; 0 waits for ever."""
    with _as_socket(connection) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))


@contextmanager
def _as_socket(connection: Connection) -> Iterator[socket.socket]:
    link = socket.socket(fileno=connection.fileno())
    try:
        yield link
    finally:
        link.detach()
