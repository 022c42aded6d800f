"""What the processes of a run and the one that started them say to each other, through a socket."""

from dataclasses import dataclass
from typing import Any, Literal

from greencore.training.processes import PackedError

Target = Literal["listener", "checkpoints", "rho"]


@dataclass(frozen=True)
class Started:
    """A process is there, of this rank."""

    rank: int


@dataclass(frozen=True)
class Call:
    """The first process calls a method of the run's listener or checkpoints, or its schedule of ρ."""

    target: Target
    method: str
    positional: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the call returned."""

    value: Any


@dataclass(frozen=True)
class Ended:
    """The process has done its part; the first one's `result` is the run's."""

    result: Any = None


@dataclass(frozen=True)
class Failed:
    """The process met an error, packed by `greencore.training.processes.pack_error`.

    `lost_contact`: it is that another process cannot be reached, whose own end says more.
    """

    error: list[PackedError]
    lost_contact: bool
