"""This machine's network: its interfaces and free ports."""

import socket

import psutil


def find_free_port(host: str) -> int:
    """Return a TCP port that no process listens on at present."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def find_interface(address: str) -> str:
    """Return the name of the network interface that has an IP address. Raises ValueError where none has it."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return str(name)
    raise ValueError(f"no network interface of this machine has the address {address!r}")
