"""Confined work without a process of its own, for what is not about one."""

import json
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from hw_profiles.files import json_text
from nas.checks.confined import Array, ConfinedError


def opened_here(
    task: str, request: Mapping[str, Any], *, arrays: Mapping[str, Array] | None = None, **limits: Any
) -> tuple[Any, dict[str, Array]]:
    """Do in this process what `confined` does in another; request and answer are JSON as ever."""
    try:
        document, given = resolve_name(task)(json.loads(json_text(request)), **(arrays or {}))
    except Exception as error:  # whatever an engine rejects
        raise ConfinedError(str(error).strip().splitlines()[0]) from None
    return json.loads(json_text(document)), given
