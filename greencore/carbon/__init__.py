"""Carbon intensity of electricity: sources, series of readings, and the emissions of metered energy."""

from greencore.carbon.accounting.pricing import MeteredEnergy, PricedInterval, price_interval
from greencore.carbon.errors import (
    AccessDenied,
    CarbonError,
    InvalidReading,
    InvalidResponse,
    InvalidSpec,
    InvalidTrace,
    NoReading,
    SourceUnavailable,
    UnknownZone,
)
from greencore.carbon.opening import open_source
from greencore.carbon.series import Basis, EmissionFactors, IntensitySeries, Reading, Signal, WeightedIntensity
from greencore.carbon.source import Source
from greencore.carbon.specification import Credentials

__all__ = [
    "AccessDenied",
    "Basis",
    "CarbonError",
    "Credentials",
    "EmissionFactors",
    "IntensitySeries",
    "InvalidReading",
    "InvalidResponse",
    "InvalidSpec",
    "InvalidTrace",
    "MeteredEnergy",
    "NoReading",
    "PricedInterval",
    "Reading",
    "Signal",
    "Source",
    "SourceUnavailable",
    "UnknownZone",
    "WeightedIntensity",
    "open_source",
    "price_interval",
]
