"""Decoders in scenarios: what each is timed at, and memory with what caches hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.cache import cache_bytes, in_scenario
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.scenario import DECODE, Scenario
from hw_profiles.profiles.latency_model import Calibration
from hw_profiles.profiles.profile import DeviceProfile
from predictors.table import CostTable, PeakTable, compile_peak, compile_table
from supernet.families.family import Family
from supernet.space.space import Genomes

LATENCY, TOKENS_PER_S = "latency", "tokens_per_s"


@dataclass(frozen=True)
class Timing:
    """What is timed.

    Attributes:
        scenario: sizes; empty where a network just reads its input.
        calibration: from rows to whole networks.
    """

    scenario: Scenario
    calibration: Calibration

    def layer(self, layer: Layer) -> Layer:
        """Return the layer that runs."""
        return in_scenario(layer, **self.scenario) if self.scenario else layer


def scenario_latency(name: str) -> str:
    """Return the objective of a scenario's latency.

    >>> scenario_latency("decode")
    'latency.decode'
    """
    return f"{LATENCY}.{name}"


def timings_of(family: Family, profile: DeviceProfile | None) -> Mapping[str, Timing]:
    """Return what is timed of a family's networks, by name of the objective."""
    whole = (profile.calibration if profile else None) or Calibration()
    if not family.scenarios:
        return {LATENCY: Timing({}, whole)}
    known = profile.scenarios if profile else {}
    return {
        scenario_latency(name): Timing(sizes, known.get(name, whole))
        for name, sizes in family.scenarios.items()
    }


def tokens_per_s(values: Mapping[str, NDArray[np.float64]], batch: int) -> dict[str, NDArray[np.float64]]:
    """Return how many tokens networks (n,) go on by in a second, of all sequences of a batch together, where
    it is known what one takes; 0 of what the device cannot run.
    """
    seconds = values.get(scenario_latency(DECODE))
    if seconds is None:
        return {}
    with np.errstate(divide="ignore"):
        return {TOKENS_PER_S: np.where(seconds > 0, batch / seconds, 0.0)}


@dataclass(frozen=True, eq=False)
class HeldPeak:
    """Memory of decoders: in the worst scenario, the most that is alive at once besides what caches hold at
    its end, and that. An engine that grows caches in place needs no more.

    Attributes:
        peaks: of each scenario.
        held: bytes of caches in each scenario.
        cost: of so many bytes.
    """

    peaks: tuple[PeakTable, ...]
    held: CostTable
    cost: Callable[[float], float]

    def __call__(self, genomes: Genomes) -> NDArray[np.float64]:
        """Return the costs (n,) of canonical genomes (n, g)."""
        alive = np.stack([peak(genomes) for peak in self.peaks], axis=1) + self.held(genomes)
        distinct, index = np.unique(alive.max(axis=1), return_inverse=True)
        return np.array([self.cost(value) for value in distinct.tolist()], np.float64)[index]


def compile_held_peak(family: Family, cost: Callable[[float], float]) -> HeldPeak:
    """Return the memory of a family of decoders, by what so many bytes cost."""
    space = family.space()
    peaks = tuple(compile_peak(space, family.scenario_peak_terms(name)) for name in family.scenarios)
    held = [partial(_held, scenario=sizes) for sizes in family.scenarios.values()]
    return HeldPeak(peaks, compile_table(space, family.scenario_terms(), held), cost)


def _held(layer: Layer, scenario: Scenario) -> float:
    return float(cache_bytes(layer, scenario))
