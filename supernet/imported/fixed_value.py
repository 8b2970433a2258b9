"""The value of an input that always has the same, as people write it."""

import math
import re
from collections.abc import Mapping

from hw_profiles.errors import TrilobitError, shown

Number = bool | int | float
Fixed = Mapping[str, Number]  # value by input
NOTHING = "none"  # as what is fixed: no input is, whatever the data says
_FIXED = re.compile(r"([^=\s]+)=(\S+)")
_WORDS = {"true": True, "false": False}


def parse_fixed(text: str) -> tuple[str, Number]:
    """Return the input and the value that `NAME=VALUE` gives; no input where it is `none`.

    >>> parse_fixed("sr=16000"), parse_fixed("training=false")
    (('sr', 16000), ('training', False))

    Raises:
        TrilobitError: not written like this, or no finite number.
    """
    if text.strip() == NOTHING:
        return "", False
    match = _FIXED.fullmatch(text.strip())
    value = _number(match[2]) if match else None
    if match is None or value is None:
        raise TrilobitError(f"{shown(text)}: write INPUT=NUMBER, such as sr=16000 or training=false")
    return match[1], value


def _number(text: str) -> Number | None:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def fixed_text(name: str, value: Number) -> str:
    """Return how people write that an input has one value.

    >>> fixed_text("training", False)
    'training=false'
    """
    return f"{name}={str(value).lower() if isinstance(value, bool) else value}"
