"""What a tune weighs answers against: time and size of files, and what they need on a microcontroller."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.runtime import CountsMemory
from nas.evaluation.micro import ARENA, FLASH
from nas.search.objectives import OBJECTIVES, Objective

LATENCY, SIZE = "latency", "size"
MEMORY = (ARENA, FLASH)
COSTS: Mapping[str, Objective] = {name: OBJECTIVES[name] for name in (LATENCY, SIZE, *MEMORY)}


@dataclass(frozen=True)
class TunedCosts:
    """Which costs a tune knows of files.

    Attributes:
        sought: what quality is traded off against, the first deciding what comes first.
        limited: others that have a limit.
    """

    sought: tuple[str, ...] = (LATENCY, SIZE)
    limited: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, those traded off first."""
        return (*self.sought, *self.limited)

    @property
    def timed(self) -> bool:
        """Whether files are timed."""
        return LATENCY in self.names

    @property
    def memory(self) -> tuple[str, ...]:
        """What is counted of a microcontroller."""
        return tuple(name for name in self.names if name in MEMORY)

    @property
    def decisive(self) -> tuple[str, ...]:
        """What a file must have less of than one with better answers: time where that is traded off."""
        return (LATENCY,) if LATENCY in self.sought else self.sought

    def columns(self, names: Sequence[str]) -> list[int]:
        """Return where costs stand in rows of quality and what is traded off."""
        return [1 + self.sought.index(name) for name in names]


def costs_of(device: Device, written: Sequence[str], limited: Sequence[str]) -> TunedCosts:
    """Return the costs of a tune on a device.

    Args:
        written: objectives as people gave them, metrics among them; none takes what the device has.
        limited: what has a limit, metrics among it.

    Raises:
        ModuleNotFoundError: what counts for microcontrollers is not installed.
        TrilobitError: the device does not have one of them, or only metrics were given.
    """
    timeless = device.describe().timeless
    sought = tuple(name for name in written if name in COSTS)
    if written and not sought:
        raise TrilobitError(f"--objective {','.join(written)}: name a cost too, of {', '.join(COSTS)}")
    sought = sought or (MEMORY if timeless else (LATENCY, SIZE))
    costs = TunedCosts(sought, tuple(n for n in limited if n in COSTS and n not in sought))
    name = device.describe().name
    if costs.timed and timeless:
        raise TrilobitError(f"{name} has no latency: it is no board; it has {', '.join((SIZE, *MEMORY))}")
    if costs.memory:
        if not isinstance(device.runtime, CountsMemory):
            raise TrilobitError(
                f"{name} counts no {' or '.join(costs.memory)}: take --device tflite-micro, or "
                "litert:files=lean for times of this machine beside them"
            )
        device.runtime.require_counter()
    return costs
