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
def test_estimated_and_missing_readings_are_estimates(method: str) -> None:
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
def test_metered_readings_are_not_estimates(method: str) -> None:
    assert not is_estimate(method)
