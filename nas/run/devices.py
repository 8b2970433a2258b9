"""From the words that name a device to the backend that drives it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import LayerSpec
from hw_profiles.measure.backend import Backend
from hw_profiles.registry import BACKENDS, load, names
from hw_profiles.runtimes.analytical.recorded import RecordedBackend
from nas.run.config import DeviceSection

# what stands after the colon of a device's name, where a backend needs it
_ARGUMENTS: Mapping[str, str] = {
    "recorded": "PROFILE.json",
    "table": "FILE",
    "systolic": "bitfusion or PARAMETERS.toml",
}
_DESCRIPTIONS: Mapping[str, str] = {
    "recorded": "replays a saved profile",
    "table": "published measurements: OFA and ProxylessNAS phones, BitFusion",
    "systolic": "a model of an accelerator with 2- to 8-bit layers",
}
MOST_LACKING = 0.1  # of the units of a space, that are predicted where a recorded profile lacks them


def open_backend(device: DeviceSection) -> Backend:
    """The backend that a run's device section names.

    Raises:
        TrilobitError: no such device, an argument it needs is missing, or its engine refuses.
    """
    name, _, argument = device.name.partition(":")
    make = load("trilobit.devices", BACKENDS, name)
    if name in _ARGUMENTS and not argument:
        raise TrilobitError(f"device {name!r} needs to know which one: write {name}:{_ARGUMENTS[name]}")
    backend: Backend = make(**_options(name, argument, device))
    return backend


def covering(backend: RecordedBackend, layers: Sequence[LayerSpec], name: str) -> RecordedBackend:
    """Return the recorded device with an estimate for each of these units that it lacks: other images have
    another first layer, other classes another last one.

    Raises:
        TrilobitError: it lacks so many that it was recorded for another space.
    """
    missing = [layer for layer in layers if layer not in backend.profile]
    if len(missing) > MOST_LACKING * len(layers):
        raise TrilobitError(
            f"{name}: lacks {len(missing)} of the {len(layers)} units of this space, for example "
            f"{missing[0].key()!r}; it was made for another space"
        )
    if not missing:
        return backend
    from predictors.latency.kernels import fill  # scikit-learn: only where something is predicted

    return backend.replaying(fill(backend.profile, layers, rng=np.random.default_rng(0)))


def _options(name: str, argument: str, device: DeviceSection) -> dict[str, Any]:
    options: Mapping[str, Callable[[], dict[str, Any]]] = {
        "ort": lambda: {
            "provider": argument or device.provider,
            "threads": device.threads,
            "batch": device.batch,
        },
        "tvm": lambda: _tvm_options(argument, device),
        "recorded": lambda: {"profile": Path(argument)},
        "table": lambda: {"path": Path(argument)},
        "systolic": lambda: {"device": argument},
    }
    if name in options:
        return options[name]()
    return {"argument": argument} if argument else {}  # a plug-in


def _tvm_options(argument: str, device: DeviceSection) -> dict[str, Any]:
    for option in ("threads", "batch"):
        value = getattr(device, option)
        if value != 1:
            raise TrilobitError(f"device 'tvm' runs with {option} 1 only, got {value}; use 'ort' for more")
    if bool(device.tracker) != bool(device.key):
        raise TrilobitError(
            "boards over RPC need both a tracker and a key: --rpc tracker HOST:PORT --key KEY"
        )
    options: dict[str, Any] = {"target": argument or device.target}
    if device.database:
        options["database"] = Path(device.database)
    if device.tracker:
        options |= {"tracker": device.tracker, "key": device.key}
    return options


def available_devices() -> Iterator[dict[str, str]]:
    """What `--device` takes here: the name to write, and what it is."""
    for name in sorted(names("trilobit.devices", BACKENDS)):
        if name in _ARGUMENTS:
            yield {"name": f"{name}:{_ARGUMENTS[name]}", "what": _DESCRIPTIONS[name]}
            continue
        try:
            info = open_backend(DeviceSection(name=name)).describe()
        except TrilobitError as error:
            yield {"name": name, "what": f"not usable here: {error}"}
            continue
        yield {"name": name, "what": f"{info.engine} {info.engine_version}, {info.provider}, on {info.cpu}"}
