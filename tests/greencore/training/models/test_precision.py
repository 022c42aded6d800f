"""The precision of a run depends only on the hardware."""

import pytest
import torch

from greencore.training.models.precision import supports_bf16


@pytest.mark.fault(number=7)
@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({"architecture": "riscv64"}, False),
    ],
    ids=str,
)
def test_a_processor_trains_in_bf16_where_it_supports_it(
    capabilities: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    assert supports_bf16(torch.device("cpu")) is expected
