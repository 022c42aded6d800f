"""The site of a machine: its grid zone and its power usage effectiveness (PUE)."""

import json
import re
from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

UNKNOWN_ZONE = "site-unknown"
"""The zone of a training worker whose site is not set. It is reserved: no zone of `GREENTUNE_ZONES` has this name."""

SITE_UNKNOWN = "site unknown"
"""Name of the intensity source of that zone, the world's mean."""

LONGEST_ZONE = 64
ZONE_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_ZONE - 1}}}")
"""Characters safe in queue names, URLs and comma-separated options, all of which contain zone names."""


def check_zone_name(zone: str) -> str:
    """Return the name of a zone. Raises ValueError for one that does not match `ZONE_NAME`."""
    if ZONE_NAME.fullmatch(zone) is None:
        given = repr(zone if len(zone) <= LONGEST_ZONE else f"{zone[:LONGEST_ZONE]}…")
        raise ValueError(
            f"given the zone {given}: expected at most {LONGEST_ZONE} of the characters A-Z, a-z, 0-9, '.', '_' and "
            "'-', the first one a letter or a digit"
        )
    return zone


class Site(BaseModel):
    """A zone of `GREENTUNE_ZONES`, and the PUE: kWh drawn by the site for each kWh that the machine uses."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    zone: Annotated[str, AfterValidator(check_zone_name)]
    pue: float = Field(default=1.0, ge=1, le=10)


UNKNOWN_SITE = Site(zone=UNKNOWN_ZONE)
"""The site of a training worker without `GREENTUNE_SITE`: its energy is priced at the world's mean."""


SITE_NOT_SET = (
    'GREENTUNE_SITE is not set: training on this machine is priced at the world\'s mean, labelled "site unknown", and '
    "no job that requests a zone runs here; set the zone of this machine"
)


def read_site(value: object) -> object:
    """Return the site in `value`: the name of a zone, or JSON such as `{"zone": "FR", "pue": 1.2}`.

    A value that is not a string is returned unchanged. Raises ValueError that names each invalid field.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        raise ValueError('is empty: expected a zone such as FR, or {"zone": "FR", "pue": 1.2}')
    if not text.startswith("{"):
        return Site.model_validate({"zone": text})
    try:
        return Site.model_validate(json.loads(text))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
        raise ValueError("; ".join(faults)) from None
    except ValueError as error:
        raise ValueError(
            f'is not JSON ({error}): expected a zone such as FR, or {{"zone": "FR", "pue": 1.2}}'
        ) from None


def explain_missing_worker(served: Collection[str]) -> str:
    """Return why a job that requests a zone waits, where live workers serve only the zones `served`."""
    if UNKNOWN_ZONE not in served:
        return ": none is alive"
    return ": none is alive there, and a worker without GREENTUNE_SITE takes no job that requests a zone"
