"""Carbon intensity of electricity: where it comes from, how it varies, and what metered energy emits."""

from greencore.carbon.accounting import Metered, PricedInterval, price
from greencore.carbon.credentials import Credentials
from greencore.carbon.errors import (
    AccessRefused,
    BadAnswer,
    CarbonError,
    InvalidReading,
    InvalidSpec,
    InvalidTrace,
    NoReading,
    SourceUnavailable,
    UnknownZone,
)
from greencore.carbon.opening import open_source
from greencore.carbon.series import Basis, EmissionFactors, IntensitySeries, Reading, Signal, WeightedIntensity
from greencore.carbon.source import Source

__all__ = [
    "AccessRefused",
    "BadAnswer",
    "Basis",
    "CarbonError",
    "Credentials",
    "EmissionFactors",
    "IntensitySeries",
    "InvalidReading",
    "InvalidSpec",
    "InvalidTrace",
    "Metered",
    "NoReading",
    "PricedInterval",
    "Reading",
    "Signal",
    "Source",
    "SourceUnavailable",
    "UnknownZone",
    "WeightedIntensity",
    "open_source",
    "price",
]
