"""Names of the measurement methods of a machine's components, as stored and displayed."""

CONFIGURED = "configured power"
NONE = "none"
RAPL = "RAPL"
TDP_ESTIMATE = "TDP estimate"
CAPACITY_ESTIMATE = "capacity estimate"
ENERGY_COUNTER = "energy counter"
SAMPLED_POWER = "sampled power"
UNREADABLE = "unreadable"
LAST_POWER = "its last known power"
DESIGN_POWER = "its design power"

_NOT_MEASURED = ("estimate", "assumed", UNREADABLE, CONFIGURED)


def unresponsive_method(meter: str, basis: str) -> str:
    """Return the method name of an estimate made because a meter does not answer."""
    return f"{meter} does not answer: estimate by {basis}"


def is_unresponsive(method: str) -> bool:
    """Return whether a method is an estimate made because a meter does not answer."""
    return "does not answer" in method


def is_estimate(method: str) -> bool:
    """Return whether energy by this method was estimated, wholly or in part, rather than measured.

    True for configured power, for every estimate, for a GPU that is assumed to be the job's, and for one that could
    not be read for a part of the time.
    """
    return any(word in method for word in _NOT_MEASURED)
