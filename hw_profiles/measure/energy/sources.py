"""Which of a machine's meters to ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hw_profiles.measure.energy.meter import Meter
from hw_profiles.measure.energy.power import PowerMeter
from hw_profiles.measure.energy.powercap import Powercap, find_powercap
from hw_profiles.measure.energy.programs import find_nvidia_smi, find_tegrastats
from hw_profiles.measure.energy.sensors import find_sensors


class Finder(Protocol):
    """Looks for one kind of meter."""

    def __call__(self) -> Powercap | PowerMeter | str:
        """Return it, or in one line why there is none."""
        ...


PROCESSOR: Sequence[Finder] = (find_powercap, find_sensors, find_tegrastats)
CARD: Sequence[Finder] = (find_nvidia_smi, find_sensors, find_tegrastats)


def find_meter(gpu: bool = False, *, finders: Sequence[Finder] | None = None) -> Meter | str:
    """Return the first meter that there is, or in one line why there is none.

    Args:
        gpu: whether a graphics card does the work, so that the processor's own counters miss it.
        finders: of meters, the best first.
    """
    reasons = []
    for find in finders if finders is not None else CARD if gpu else PROCESSOR:
        outcome = find()
        if not isinstance(outcome, str):
            return outcome
        reasons.append(outcome)
    return "; ".join(reasons)
