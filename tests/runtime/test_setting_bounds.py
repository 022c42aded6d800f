"""A setting out of the range of valid dates or energies is refused at the start, by its name."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from greencore.clock import utc_now
from runtime.settings import Settings

TIMES = {
    "seconds": ["tick", "heartbeat", "lease", "redispatch", "cancel_grace"],
    "hours": ["settle_after", "stale_limit", "session", "idempotency"],
    "days": ["artifact_retention", "checkpoint_retention"],
}
NAMES = [(f"{name}_{unit}", unit) for unit, names in TIMES.items() for name in names]


@pytest.mark.fault(number=12)
@pytest.mark.parametrize(("name", "unit"), NAMES)
@pytest.mark.parametrize("value", ["inf", "nan", "1e9", "-1"])
def test_a_time_out_of_the_range_of_dates_is_refused(
    name: str, unit: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"GREENTUNE_{name.upper()}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert [fault["loc"] for fault in refused.value.errors()] == [(name,)]


@pytest.mark.fault(number=12)
@pytest.mark.parametrize(("name", "unit"), NAMES)
def test_the_longest_time_gives_a_valid_date(name: str, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = {"seconds": 864_000, "hours": 87_600, "days": 36_500}[unit]
    monkeypatch.setenv(f"GREENTUNE_{name.upper()}", str(longest))
    length = timedelta(**{unit: getattr(Settings(), name)})
    assert utc_now() - length < utc_now() < utc_now() + length


@pytest.mark.fault(number=14)
@pytest.mark.parametrize("name", ["cpu_power_w", "ram_power_w", "assumed_tflops", "assumed_power_w"])
@pytest.mark.parametrize("value", ["inf", "nan", "0"])
def test_an_amount_that_gives_no_finite_energy_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"GREENTUNE_{name.upper()}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    assert [fault["loc"] for fault in refused.value.errors()] == [(name,)]
