"""What can be optimised and limited: one registry of names, units, directions and origins."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from hw_profiles.registry import plugins
from supernet.tasks.metric import METRICS, Direction, Metric

# a metric of the task, a cost on the device, or a count over the layers
Origin = Literal["metric", "device", "count"]
Values = NDArray[np.float64]
GROUP = "trilobit.objectives"


@dataclass(frozen=True)
class Count:
    """How a cost follows from the layers of a network.

    Attributes:
        function: from a layer to what it adds or, where `largest`, from the bytes of all tensors that are
            alive at one moment to what they cost; itself, or `"module:attribute"`.
        largest: whether a network costs as much as its largest moment, not as the sum of its layers.
        constant: what every network costs besides: a function without arguments, or `"module:attribute"`.
        beside: of one that is `largest`, what each layer adds to the largest moment; itself, or
            `"module:attribute"`.
    """

    function: Callable[[Any], float] | str
    largest: bool = False
    constant: Callable[[], float] | str | None = None
    beside: Callable[[Any], float] | str | None = None

    def load(self) -> Callable[[Any], float]:
        """Return the function; its module is imported only now."""
        return _loaded(self.function)

    def load_beside(self) -> Callable[[Any], float] | None:
        """Return what each layer adds to the largest moment; None where none does."""
        return None if self.beside is None else _loaded(self.beside)

    def load_constant(self) -> float:
        """Return what every network costs besides."""
        return 0.0 if self.constant is None else float(_loaded(self.constant)())


def _loaded(function: Callable[..., float] | str) -> Callable[..., float]:
    return resolve_name(function) if isinstance(function, str) else function


@dataclass(frozen=True)
class Objective:
    """One number per network, which way is better, and where it comes from.

    Attributes:
        name: for example `latency`.
        unit: of every value of it: `s`, `bytes`, `MACs`, `J`, `fraction`, or any other word.
        direction: `max` where more is better.
        bound: the worst value that is still acceptable, in `unit`; None where any will do.
        origin: a metric of the task, a cost on the device, or a count over the layers.
        count: of a count, how it is made.
        meaning: what it is, and how a limit on it may be written.
        aliases: other names that people may write.

    Raises:
        ValueError: the bound is not a positive finite number; or a count without its function, or one of what
            is no count.
    """

    name: str
    unit: str
    direction: Direction
    bound: float | None = None
    origin: Origin = "metric"
    count: Count | None = None
    meaning: str = ""
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.bound is not None and not 0 < self.bound < math.inf:
            raise ValueError(f"{self.name}: a bound is positive and finite, not {self.bound}")
        if (self.count is not None) != (self.origin == "count"):
            raise ValueError(f"{self.name}: a count, and nothing else, says how it is counted")

    @property
    def sign(self) -> str:
        """Between the name and a limit."""
        return "<=" if self.direction == "min" else ">="

    def excess(self, values: Values) -> Values:
        """Return by how much values are beyond the bound, as a share of it; below 0 within it.

        >>> OBJECTIVES["accuracy"].excess(np.array([0.75]))
        Traceback (most recent call last):
        ValueError: accuracy has no bound
        """
        if self.bound is None:
            raise ValueError(f"{self.name} has no bound")
        return (self.to_min(values) - self.to_min(np.full(1, self.bound))) / self.bound

    def to_min(self, values: Values) -> Values:
        """Return the same values so that less is better, and back: its own inverse. Only here are signs
        flipped.

        >>> OBJECTIVES["accuracy"].to_min(np.array([0.75]))
        array([-0.75])
        """
        return -values if self.direction == "max" else values


def of_metric(metric: Metric) -> Objective:
    """Return the objective that a metric of a task is."""
    return Objective(
        metric.name, metric.unit, metric.direction, meaning=metric.meaning, aliases=metric.aliases
    )


OBJECTIVES: Mapping[str, Objective] = {
    known.name: known
    for known in (
        *map(of_metric, METRICS),
        Objective("latency", "s", "min", origin="device", meaning="0.3ms, or 60% of the largest network's"),
        Objective(
            *("latency.prefill", "s", "min"),
            origin="device",
            meaning="of a decoder's prompt: 3ms, or 60%",
        ),
        Objective(
            *("latency.decode", "s", "min"),
            origin="device",
            meaning="of a decoder's next token: 0.3ms, or 60%",
        ),
        Objective(
            *("tokens_per_s", "tokens/s", "max"),
            origin="device",
            meaning="that a decoder goes on by: 2000, or 150%",
        ),
        Objective(
            *("size", "bytes", "min"),
            origin="count",
            count=Count("nas.emit.layer_size:layer_bytes", constant="nas.emit.to_onnx:file_overhead"),
            meaning="such as 200KB, or 60%",
        ),
        Objective(
            *("macs", "MACs", "min"),
            origin="count",
            count=Count("hw_profiles.graph.counts:macs"),
            meaning="multiply-adds: 3M, or 60%",
        ),
        Objective(
            *("memory", "bytes", "min"),
            origin="count",
            count=Count("builtins:float", largest=True),
            meaning="tensors alive at once: 32KB, or 60%",
        ),
        Objective(
            *("arena", "bytes", "min"),
            origin="count",
            count=Count(
                "builtins:float",
                largest=True,
                constant="hw_profiles.runtimes.tflite_micro.sizes:kept_always",
                beside="hw_profiles.runtimes.tflite_micro.sizes:kept_bytes",
            ),
            meaning="working memory of a microcontroller: 64KB, or 60%",
        ),
        Objective(
            *("flash", "bytes", "min"),
            origin="count",
            count=Count(
                "hw_profiles.runtimes.tflite_micro.sizes:flash_bytes",
                constant="hw_profiles.runtimes.tflite_micro.sizes:file_bytes",
            ),
            meaning="of a microcontroller, for the .tflite file: 128KB, or 60%",
        ),
        Objective("energy", "J", "min", origin="device", meaning="such as 2mJ, or 60%"),
    )
}


def objectives() -> Mapping[str, Objective]:
    """Return every objective by name: built-in ones, and those of installed plug-ins, whose entry points in
    `trilobit.objectives` lead to an `Objective` or to a task's `Metric`.
    """
    others = {name: resolve_name(value) for name, value in plugins(GROUP).items() if name not in OBJECTIVES}
    made = (of_metric(stated) if isinstance(stated, Metric) else stated for stated in others.values())
    return {**OBJECTIVES, **{stated.name: stated for stated in made}}


_ALIASES: Mapping[str, str] = {
    written.replace("-", "_"): known.name
    for known in OBJECTIVES.values()
    for written in (known.name, *known.aliases)
}


def canonical_name(name: str) -> str:
    """Return the name in the registry of an objective that people may call otherwise; what is unknown as it
    is.

    >>> canonical_name("negative-flips"), canonical_name("worst-class"), canonical_name("speed")
    ('flips', 'worst_class', 'speed')
    """
    return _ALIASES.get(name.replace("-", "_"), name)


def objective(name: str, bound: float | None = None) -> Objective:
    """Return the objective called `name`, or by one of its aliases, with a bound.

    Raises:
        TrilobitError: no such objective.
    """
    name = canonical_name(name)
    by_name = OBJECTIVES if name in OBJECTIVES else objectives()
    if name not in by_name:
        hint = did_you_mean(name, by_name)
        raise TrilobitError(f"unknown objective {shown(name)}; known: {', '.join(by_name)}{hint}")
    return replace(by_name[name], bound=bound)


def to_min(objectives: Sequence[Objective], values: Values) -> Values:
    """Return (n, m) values, one column per objective, all of them to be minimised."""
    columns = [objective.to_min(values[:, column]) for column, objective in enumerate(objectives)]
    return np.column_stack(columns) if columns else np.empty((len(values), 0))


def violation(objectives: Sequence[Objective], values: Values) -> Values:
    """Return (n,) how far the rows of `values` (n, m) are out of bounds: relative excess, summed; 0 is
    feasible.

    A value that is not finite breaks its bound infinitely.

    >>> violation([objective("latency", 0.5)], np.array([[0.25], [0.75]]))
    array([0. , 0.5])
    """
    total = np.zeros(len(values))
    for column, bounded in enumerate(objectives):
        if bounded.bound is not None:
            excess = np.maximum(bounded.excess(values[:, column]), 0.0)
            total += np.nan_to_num(excess, nan=np.inf, posinf=np.inf)
    return total
