"""Colour scale of carbon intensities, from green to brown, with a name for each band.

The colours are `--band-1` to `--band-7` in `greentune.css`; the layout passes the bounds to the scripts.
"""

import json
import math
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Band:
    """A range of intensities [start, end) in gCO2e/kWh; `end` is None for the last band."""

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
    """Return the band of an intensity in gCO2e/kWh; below 0 is very clean. Raises `ValueError` unless it is finite."""
    if not math.isfinite(gco2e_per_kwh):
        raise ValueError(f"given {gco2e_per_kwh}: expected an intensity in gCO2e/kWh")
    return next(band for band in BANDS if band.end is None or gco2e_per_kwh < band.end)
