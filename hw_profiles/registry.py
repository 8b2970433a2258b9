"""A registry is a dict from a name to `"module:attribute"`; third parties join through entry points of its
group: `trilobit.devices`, `trilobit.spaces`, `trilobit.formats`, `trilobit.searchers`, `trilobit.predictors`.
"""

import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any

from hw_profiles.engines import missing_engine
from hw_profiles.errors import TrilobitError, did_you_mean

DEVICES: Mapping[str, str] = {
    "adb": "hw_profiles.runtimes.transports.adb:ADB",
    "ort": "hw_profiles.runtimes.ort.plugin:ORT",
    "litert": "hw_profiles.runtimes.litert.plugin:LITERT",
    "openvino": "hw_profiles.runtimes.openvino.plugin:OPENVINO",
    "ncnn": "hw_profiles.runtimes.ncnn.plugin:NCNN",
    "recorded": "hw_profiles.runtimes.analytical.plugin:RECORDED",
    "systolic": "hw_profiles.runtimes.analytical.plugin:SYSTOLIC",
    "ssh": "hw_profiles.runtimes.transports.ssh:SSH",
    "tflite-micro": "hw_profiles.runtimes.microcontroller.plugin:TFLITE_MICRO",
    "table": "hw_profiles.runtimes.analytical.plugin:TABLE",
    "tvm": "hw_profiles.runtimes.transports.tvm_rpc.plugin:TVM",
}


def plugins(group: str) -> dict[str, str]:
    """Return what installed plug-ins add to the registry `group`, for example `trilobit.devices`."""
    return {point.name: point.value for point in _installed(_places()).select(group=group)}


@lru_cache(maxsize=1)
def _installed(places: tuple[tuple[str, int], ...]) -> Any:
    """Return all entry points, to select from; even for one group a file of every package is read."""
    return entry_points()


def _places() -> tuple[tuple[str, int], ...]:
    """Return where packages are installed, and when something was last."""
    return tuple((path, os.stat(path or ".").st_mtime_ns) for path in sys.path if os.path.exists(path or "."))


def names(group: str, builtin: Mapping[str, str]) -> dict[str, str]:
    """Return all entries of one registry: those of installed plug-ins, and the built-in ones."""
    return plugins(group) | dict(builtin)


def load(group: str, builtin: Mapping[str, str], name: str) -> Any:
    """Return the object registered as `name`; its module is imported only now.

    Raises:
        TrilobitError: nothing of that name is registered, or the engine that it needs is not installed.
    """
    registered = builtin if name in builtin else names(group, builtin)
    if name not in registered:
        kind = group.rsplit(".", 1)[-1].rstrip("s")
        raise TrilobitError(
            f"unknown {kind} {name!r}; known: {', '.join(sorted(registered))}{did_you_mean(name, registered)}"
        )
    try:
        return resolve_name(registered[name])
    except ModuleNotFoundError as error:
        if remedy := missing_engine(error):
            raise TrilobitError(f"{name}: {remedy}") from None
        raise
