"""The worker's device is the GPU that CUDA shows it first; the driver's NVML is a fake."""

from dataclasses import dataclass
from types import SimpleNamespace

import pynvml
import pytest

from greencore.host_memory import read_host_memory
from worker.device import VisibleGpu, read_visible_gpus


@dataclass(frozen=True)
class Board:
    """A GPU, or a MIG instance of one, with its memory in bytes and its compute capability's major number.

    One with `memory` None shares the host's.
    """

    index: int
    uuid: str
    name: str
    memory: int | None
    major: int = 9


BOARDS = (
    Board(0, "GPU-aa11", "NVIDIA H100", 80 * 10**9),
    Board(1, "GPU-bb22", "Tesla T4", 16 * 10**9, major=7),
    Board(2, "GPU-cc33", "NVIDIA B300", 288 * 10**9, major=10),
    Board(3, "GPU-dd44", "NVIDIA GB10", None, major=12),
)
INSTANCE = Board(2, "MIG-55", "NVIDIA B300 MIG 1g.34gb", 34 * 10**9, major=10)


class Nvml:
    """Fake of the NVML calls of `read_visible_gpus`, for four boards, of which the third has a MIG instance."""

    NVMLError = pynvml.NVMLError

    def __init__(self) -> None:
        self.opened = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.opened -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(BOARDS)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:  # noqa: N802
        return BOARDS[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Board:  # noqa: N802
        if uuid != INSTANCE.uuid:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return INSTANCE

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, instance: Board) -> Board:  # noqa: N802
        return BOARDS[instance.index]

    def nvmlDeviceGetIndex(self, board: Board) -> int:  # noqa: N802
        return board.index

    def nvmlDeviceGetUUID(self, board: Board) -> str:  # noqa: N802
        return board.uuid

    def nvmlDeviceGetName(self, board: Board) -> str:  # noqa: N802
        return board.name

    def nvmlDeviceGetMemoryInfo(self, board: Board) -> SimpleNamespace:  # noqa: N802
        if board.memory is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=board.memory)

    def nvmlDeviceGetCudaComputeCapability(self, board: Board) -> tuple[int, int]:  # noqa: N802
        return board.major, 0


@pytest.mark.parametrize(
    ("visible", "board"),
    [
        (None, BOARDS[0]),
        ("1", BOARDS[1]),
        ("2,0", BOARDS[2]),
        ("GPU-bb22", BOARDS[1]),
        ("MIG-55", INSTANCE),
        ("", None),
        ("-1", None),
        ("7", None),
    ],
)
def test_the_device_is_the_gpu_that_cuda_shows_first(visible: str | None, board: Board | None) -> None:
    nvml, environment = Nvml(), {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = read_visible_gpus(environment, nvml)
    assert [(gpu.name, gpu.memory_bytes, gpu.computes_bf16) for gpu in found[:1]] == (
        [] if board is None else [(board.name, board.memory, board.major >= 8)]
    )
    assert nvml.opened == 0


@pytest.mark.parametrize(
    ("visible", "entries", "names"),
    [
        (None, ["GPU-aa11", "GPU-bb22", "GPU-cc33", "GPU-dd44"], [board.name for board in BOARDS]),
        ("2, 0", ["2", "0"], [BOARDS[2].name, BOARDS[0].name]),
        ("MIG-55,1,9,0", ["MIG-55", "1"], [INSTANCE.name, BOARDS[1].name]),
        ("0,0", [], []),
    ],
)
def test_every_visible_gpu_has_the_entry_that_shows_it_alone(
    visible: str | None, entries: list[str], names: list[str]
) -> None:
    found = read_visible_gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, Nvml())
    assert [gpu.entry for gpu in found] == entries
    assert [gpu.name for gpu in found] == names
    for gpu in found:
        assert read_visible_gpus({"CUDA_VISIBLE_DEVICES": gpu.entry}, Nvml()) == (gpu,)


def test_a_gpu_that_shares_the_hosts_memory_keeps_its_name_and_arithmetic() -> None:
    [found] = read_visible_gpus({"CUDA_VISIBLE_DEVICES": "3"}, Nvml())
    assert found == VisibleGpu("3", "NVIDIA GB10", read_host_memory(), computes_bf16=True)
