"""Times as people write them."""

import re

from hw_profiles.errors import TrilobitError, shown

LONGEST_S = 30 * 86_400.0  # that a time may be
_TIME = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\s*([smh])\s*")


def parse_time(text: str) -> float:
    """Return the seconds of a time as people write it.

    >>> parse_time("2m"), parse_time("90s"), parse_time("1.5 h")
    (120.0, 90.0, 5400.0)

    Raises:
        TrilobitError: not a number with one of the units s, m, h, not above 0, or above 30 days.
    """
    match = _TIME.fullmatch(text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= LONGEST_S:
        raise TrilobitError(f"not a time: {shown(text)}; write for example 30s, 2m or 1h, at most 30 days")
    return seconds
