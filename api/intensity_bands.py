"""The one scale from green to brown by which an intensity is coloured, each colour with a word beside it.

The colours are `--band-1` to `--band-7` in `greentune.css`; pages carry the bounds to their scripts in the layout.
"""

import json
import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Band:
    """Intensities from `start` on, up to but without `end`, in gCO2e/kWh."""

    number: int
    start: float
    end: float | None
    name: str


BANDS = (
    Band(1, 0, 50, "very clean"),
    Band(2, 50, 100, "clean"),
    Band(3, 100, 200, "fairly clean"),
    Band(4, 200, 300, "mixed"),
    Band(5, 300, 450, "fairly dirty"),
    Band(6, 450, 600, "dirty"),
    Band(7, 600, None, "very dirty"),
)
BANDS_JSON = json.dumps([asdict(band) for band in BANDS])


def band_of(gco2e_per_kwh: float) -> Band:
    """The band of an intensity in gCO2e/kWh; one below 0 is very clean. Raises `ValueError` for what is not finite."""
    if not math.isfinite(gco2e_per_kwh):
        raise ValueError(f"given {gco2e_per_kwh}: expected an intensity in gCO2e/kWh")
    return next(band for band in BANDS if band.end is None or gco2e_per_kwh < band.end)
