"""What the space's networks cost: tables compiled of every registered cost, and predictions from them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.working_set import kept_bytes
from hw_profiles.profiles.latency_model import Calibration
from hw_profiles.profiles.profile import DeviceProfile
from nas.problem.scenarios import LATENCY as LATENCY
from nas.problem.scenarios import TOKENS_PER_S, Timing, compile_held_peak, timings_of, tokens_per_s
from nas.search.objectives import Count, objectives
from predictors.table import (
    CostTable,
    beside,
    compile_peak,
    compile_table,
    distinct_layers,
    profiled_layers,
)
from supernet.families.family import Family
from supernet.space.space import Genomes

ENERGY, SIZE = "energy", "size"
REJECTED = "rejected"  # column of the table: how many layers the device cannot run
Column = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """Predicted costs of one space on one device.

    Attributes:
        table: of what adds up over the layers: the registered counts, the number of layers that the device
            rejects, calibrated seconds in each scenario, and joules where they are known.
        columns: of the table, by name of the objective or `REJECTED`.
        peaks: by name of the objective, counts that are the largest of a network's parts.
        constants: by name of the objective, what every network has besides.
        timings: by name of the objective, what is timed; the first is `latency` too.
        batch: sequences of one inference.
    """

    table: CostTable
    columns: tuple[str, ...]
    peaks: Mapping[str, Callable[[Genomes], Column]]
    constants: Mapping[str, float]
    timings: Mapping[str, Timing]
    batch: int = 1

    def predict(self, genomes: Genomes) -> dict[str, Column]:
        """Return the costs (n,) of canonical genomes (n, g) by objective name: `latency` in seconds, every
        registered count such as `size` and `memory` in bytes or `macs`, and, where every row of the profile
        has it, `energy` in joules. Of decoders `latency` is that of the first scenario, and there is
        `latency.prefill` or whatever they are called, and `tokens_per_s`.

        Latency and energy of a network with a layer that the device rejects are infinite; of a device without
        times everything is.
        """
        sums = dict(zip(self.columns, self.table(genomes).T, strict=True))
        for name, timing in self.timings.items():
            if (kept := sums.pop(_kept(name), None)) is not None:
                sums[name] += timing.calibration.spilled_s(kept)
        rejected = sums.pop(REJECTED, np.zeros(len(genomes))) > 0
        values = {name: column + self.constants.get(name, 0.0) for name, column in sums.items()}
        for name, table in self.peaks.items():
            values[name] = table(genomes) + self.constants.get(name, 0.0) + values.pop(_beside(name), 0.0)
        for name in (self.on_device & values.keys()) or values.keys():
            values[name] = np.where(rejected, np.inf, values[name])
        return values | self._derived(values)

    def cautious(self, values: Mapping[str, Column], quantile: float) -> dict[str, Column]:
        """Return predicted values with times (n,) so many expected errors above what is predicted, in place
        of the predicted ones.
        """
        margins = {name: values[name] + quantile * std for name, std in self.std(values).items()}
        return {**values, **margins, **self._derived({**values, **margins})}

    def _derived(self, values: Mapping[str, Column]) -> dict[str, Column]:
        """Return what follows from seconds in scenarios, where there are any."""
        first = next(iter(self.timings))
        speed = {} if self.batch < 1 else tokens_per_s(values, self.batch)
        return {**({LATENCY: values[first]} if first != LATENCY and first in values else {}), **speed}

    @property
    def calibration(self) -> Calibration:
        """From rows to the latency of whole networks."""
        return next(iter(self.timings.values())).calibration

    @property
    def timed(self) -> frozenset[str]:
        """Names of the costs that are, or follow from, seconds."""
        derived = {TOKENS_PER_S} if len(self.timings) > 1 else set[str]()
        return frozenset({*self.timings, LATENCY, *derived})

    @property
    def on_device(self) -> frozenset[str]:
        """Names of the costs that are the device's."""
        return self.timed | ({ENERGY} & {*self.columns})

    def std(self, values: Mapping[str, Column]) -> dict[str, Column]:
        """Return (n,) the expected error of each of these predicted values that are the device's: the
        relative error on held-out networks; 0 where the device cannot run the network.
        """
        known = {**{LATENCY: self.calibration}, **{name: t.calibration for name, t in self.timings.items()}}
        return {
            name: expected_error(values[name], calibration)
            for name, calibration in known.items()
            if name in values
        }

    def latency_std(self, latency_s: Column) -> Column:
        """Return (n,) the expected error of predicted seconds of `latency`."""
        return expected_error(latency_s, self.calibration)


def expected_error(seconds: Column, calibration: Calibration) -> Column:
    """Return (n,) the expected error of predicted seconds, as held-out networks show; 0 of infinite ones."""
    error = calibration.held_out_error().get("mape", 0.0)
    finite = np.where(np.isfinite(seconds), seconds, 0.0)
    return np.asarray(finite * error * np.sqrt(np.pi / 2))  # mean absolute error of a normal distribution


def compile_costs(family: Family, profile: DeviceProfile | None) -> Costs:
    """Return the costs of the family's space; without a profile all seconds are 0."""
    counts = {stated.name: stated.count for stated in objectives().values() if stated.count is not None}
    summed = {name: count for name, count in counts.items() if not count.largest}
    counted = {name: count.load() for name, count in summed.items()}
    counted |= {_beside(name): added for name, count in counts.items() if (added := count.load_beside())}
    timings, timed = timings_of(family, profile), _timed(family, profile)
    space, terms = family.space(), family.terms()
    if family.scenarios:
        table = beside(
            compile_table(space, terms, [*counted.values()]),
            compile_table(space, family.scenario_terms(), [*timed.values()]),
        )
    else:
        table = compile_table(space, terms, [*counted.values(), *timed.values()])
    constants = {
        **{name: count.load_constant() for name, count in counts.items()},
        **{name: timing.calibration.intercept_s for name, timing in timings.items()},
    }
    peaks = {name: _peak(family, count) for name, count in counts.items() if count.largest}
    batch = profile.device.batch if profile is not None else 0
    return Costs(table, (*counted, *timed), peaks, constants, timings, batch)


def _kept(name: str) -> str:
    """Return the column of the working set's bytes, beside the seconds of what is timed."""
    return f"{name}, working set"


def _beside(name: str) -> str:
    """Return the column of what each layer adds to a count's largest moment."""
    return f"{name}, beside the largest moment"


def _peak(family: Family, count: Count) -> Callable[[Genomes], Column]:
    if family.scenarios:
        return compile_held_peak(family, count.load())
    return compile_peak(family.space(), family.peak_terms(), count.load())


def _timed(family: Family, profile: DeviceProfile | None) -> dict[str, Callable[[Layer], float]]:
    """Return what a layer adds to what a device rejects, to seconds, and to joules where those are known."""
    # A rejected unit counts 0 s and one rejection: infinity times a slope of 0 would be no number, and times
    # one below 0 it would be the best latency there is.
    known_s: Callable[[Layer], float] = cache(profile.cost_s) if profile else lambda layer: 0.0
    timings = timings_of(family, profile)
    first = next(iter(timings.values()))

    def rejects(layer: Layer) -> bool:
        return math.isinf(known_s(layer))

    def rejected(layer: Layer) -> float:
        return float(sum(rejects(timing.layer(layer)) for timing in timings.values()))

    def seconds(timing: Timing) -> Callable[[Layer], float]:
        def of(layer: Layer) -> float:
            run = timing.layer(layer)
            return 0.0 if profile is None or rejects(run) else timing.calibration.row_s(run, known_s(run))

        return of

    def kept(timing: Timing) -> Callable[[Layer], float]:
        return lambda layer: float(kept_bytes(timing.layer(layer)))

    def joules(layer: Layer) -> float:
        run = first.layer(layer)
        return 0.0 if profile is None or rejects(run) else profile.energy_j(run)

    if profile is not None and profile.device.timeless:
        return {REJECTED: rejected}
    timed = {REJECTED: rejected, **{name: seconds(timing) for name, timing in timings.items()}}
    spilling = {name: timing for name, timing in timings.items() if timing.calibration.per_byte_s}
    timed |= {_kept(name): kept(timing) for name, timing in spilling.items()}
    if profile is None:
        return timed
    layers = profiled_layers(family) if family.scenarios else distinct_layers(family.space(), family.terms())
    runs = [layer for layer in layers if not rejects(layer)]
    if runs and not any(math.isnan(profile.energy_j(layer)) for layer in runs):
        timed[ENERGY] = joules
    return timed
