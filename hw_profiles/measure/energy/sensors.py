"""Power from Texas Instruments' INA sensors, as Linux shows those of a board below `/sys/class/hwmon`.

https://docs.kernel.org/hwmon/sysfs-interface.html: `power1_input` is in microwatts, `in1_input` in millivolts
and `curr1_input` in milliamperes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.measure.energy.power import PowerMeter, rails_that_count

HWMON = Path("/sys/class/hwmon")
CHANNELS = range(1, 9)
UNCONNECTED = ("NC", "")  # labels of channels that nothing is behind
SAMPLE_S = 0.02  # these sensors average over about 35 ms by themselves
UPDATES = 25  # half a second


@dataclass(frozen=True)
class Rail:
    """One channel of a sensor.

    Attributes:
        name: as the board's description calls it, or the sensor and its channel.
        microwatts: its file, where the sensor multiplies by itself.
        millivolts, milliamperes: else these.
    """

    name: str
    microwatts: Path | None
    millivolts: Path
    milliamperes: Path

    def watts(self) -> float:
        """Return what it draws now.

        Raises:
            OSError: the channel is switched off, or its sensor gone.
        """
        if self.microwatts is not None:
            return 1e-6 * int(self.microwatts.read_text())
        return 1e-6 * int(self.millivolts.read_text()) * int(self.milliamperes.read_text())


def find_sensors(root: Path = HWMON) -> PowerMeter | str:
    """Return the board's sensors, or in one line why there are none."""
    rails = [rail for rail in _rails(root) if _answers(rail)]
    if not rails:
        return f"no INA sensor below {root}"
    counted = rails_that_count([rail.name for rail in rails])
    chosen = [rail for rail in rails if rail.name in counted]

    def samples(stopped: threading.Event) -> Iterator[float]:
        while not stopped.is_set():
            yield sum(rail.watts() for rail in chosen)
            stopped.wait(SAMPLE_S)

    return PowerMeter("INA sensors", " and ".join(counted), samples, UPDATES, 2 * SAMPLE_S)


def _rails(root: Path) -> Iterator[Rail]:
    for folder in sorted(root.glob("hwmon*")):
        with contextlib.suppress(OSError):
            chip = (folder / "name").read_text().strip()
            if chip.startswith("ina"):
                yield from _rails_of(folder, chip)


def _rails_of(folder: Path, chip: str) -> Iterator[Rail]:
    for channel in CHANNELS:
        microwatts = folder / f"power{channel}_input"
        millivolts, milliamperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
        if not microwatts.exists() and not (millivolts.exists() and milliamperes.exists()):
            continue
        labels = [folder / f"{kind}{channel}_label" for kind in ("power", "in", "curr")]
        named = [label.read_text().strip() for label in labels if label.exists()]
        name = named[0] if named else f"{chip} {folder.name} channel {channel}"
        if name not in UNCONNECTED:
            yield Rail(name, microwatts if microwatts.exists() else None, millivolts, milliamperes)


def _answers(rail: Rail) -> bool:
    try:
        rail.watts()
    except (OSError, ValueError):
        return False
    return True
