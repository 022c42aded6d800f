import pytest

from greencore.energy import is_estimate


@pytest.mark.parametrize(
    "method",
    [
        "TDP estimate",
        "capacity estimate",
        "configured power",
        "NVML unreadable",
        "NVML energy counter, NVML unreadable",
        "NVML energy counter (device order assumed)",
    ],
)
def test_what_was_reckoned_or_is_missing_is_an_estimate(method: str) -> None:
    assert is_estimate(method)


@pytest.mark.parametrize(
    "method",
    [
        "RAPL",
        "NVML energy counter",
        "NVML sampled power",
        "NVML energy counter (the whole GPU of a MIG instance)",
        "powermetrics",
        "none",
    ],
)
def test_what_was_read_from_a_meter_is_none(method: str) -> None:
    assert not is_estimate(method)
