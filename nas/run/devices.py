"""What devices there are, and a recorded one made to cover a space."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.registry import DEVICES, names
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from hw_profiles.runtimes.plugin import DeviceKind, device_kind, open_device

MOST_LACKING = 0.1  # of the units of a space, that are predicted where a recorded profile lacks them


def covering(device: RecordedDevice, layers: Sequence[Layer], name: str) -> RecordedDevice:
    """Return the recorded device with an estimate for each of these units that it lacks: other images have
    another first layer, other classes another last one.

    Raises:
        TrilobitError: it lacks so many that it was recorded for another space.
    """
    missing = [layer for layer in layers if layer not in device.profile]
    if len(missing) > MOST_LACKING * len(layers):
        raise TrilobitError(
            f"{name}: lacks {len(missing)} of the {len(layers)} units of this space, for example "
            f"{missing[0].key()!r}; it was made for another space"
        )
    if not missing:
        return device
    from predictors.latency.kernels import fill  # scikit-learn: only where something is predicted

    return device.replaying(fill(device.profile, layers, rng=np.random.default_rng(0)))


def available_devices() -> Iterator[dict[str, Any]]:
    """Yield what `--device` takes here: the name to write, what it is, its options, and where it is a runtime
    of this machine the pairs of number formats (weights, activations) that it has kernels for.
    """
    for name in sorted(names("trilobit.devices", DEVICES)):
        kind = device_kind(name)
        shown = f"{name}:{kind.metavar}" if kind.required else name
        options = {key: option.allowed for key, option in kind.table.items()}
        yield {"name": shown, "what": kind.summary, "options": options, "formats": [], **_opened(name, kind)}


def _opened(name: str, kind: DeviceKind) -> dict[str, Any]:
    """Return what a device says of itself; nothing of one that needs a file."""
    if kind.required:
        return {}
    try:
        device = open_device(name)
        info = device.describe()
    except TrilobitError as error:
        return {"what": f"not usable here: {error}"}
    formats = sorted(map("/".join, device.runtime.formats)) if device.runtime else []
    what = f"{info.engine} {info.engine_version}, {info.provider}, on {info.cpu}"
    return {"what": what, "formats": formats}
