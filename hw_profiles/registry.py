"""A registry is a dict from a name to `"module:attribute"`; third parties join through entry points of the
same group name.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

from hw_profiles.errors import TrilobitError

BACKENDS: Mapping[str, str] = {
    "ort": "hw_profiles.backends.ort:OrtBackend",
    "recorded": "hw_profiles.backends.recorded:RecordedBackend",
    "systolic": "hw_profiles.backends.systolic:SystolicBackend",
    "table": "hw_profiles.backends.table:TableBackend",
    "tvm": "hw_profiles.backends.tvm_cpu.remote:open_tvm",
}


def names(group: str, builtin: Mapping[str, str]) -> dict[str, str]:
    """All entries of one registry: the built-in ones and those of installed plug-ins (`group` is e.g.
    `trilobit.backends`).
    """
    return {point.name: point.value for point in entry_points(group=group)} | dict(builtin)


def load(group: str, builtin: Mapping[str, str], name: str) -> Any:
    """The object registered as `name`; its module is imported only now.

    Raises:
        TrilobitError: nothing of that name is registered.
    """
    if name in builtin:
        return resolve_name(builtin[name])
    known = names(group, builtin)
    if name not in known:
        raise TrilobitError(
            f"unknown {group.rsplit('.', 1)[-1].rstrip('s')} {name!r}; known: {', '.join(sorted(known))}"
        )
    return resolve_name(known[name])
