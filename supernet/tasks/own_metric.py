"""A metric of the user's own: `module:function`, imported because the user named it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, shown
from supernet.data.samples import Samples
from supernet.data.user_function import told, user_function
from supernet.tasks.metric import Direction, Metric

Outputs = Mapping[str, NDArray[Any]]
Function = Callable[[Outputs, Outputs, Samples], float | Mapping[str, float]]
MAIN = ""  # key of a metric that is a single number


@dataclass(frozen=True, eq=False)
class OwnMetric:
    """A function of a network's outputs, the original's, and the samples.

    Attributes:
        name: `module:function`.
        function: gives a number, or several by name, the main one first.
        metrics: what it gives.
    """

    name: str
    function: Function
    metrics: tuple[Metric, ...]

    def evaluate(self, outputs: Outputs, original: Outputs, samples: Samples) -> dict[str, float]:
        """Return the values by the metrics' names.

        Raises:
            TrilobitError: it raises, or gives what is no number, or other numbers than at first.
        """
        values = _called(self.name, self.function, outputs, original, samples)
        named = {_metric_name(self.name, key): value for key, value in values.items()}
        names = [metric.name for metric in self.metrics]
        if list(named) != names:
            raise TrilobitError(f"metric {self.name}: gave {', '.join(named)}, and before {', '.join(names)}")
        return named


def own_metric(name: str, direction: Direction | None, original: Outputs, samples: Samples) -> OwnMetric:
    """Return the metric `module:function`, tried on the original itself.

    Args:
        direction: whether more or less is better; None takes the function's attribute `direction`, or else
            more.

    Raises:
        TrilobitError: no such function, or as `OwnMetric.evaluate`.
    """
    function = user_function(name)
    stated = direction or getattr(function, "direction", "max")
    if stated not in ("max", "min"):
        raise TrilobitError(f"metric {name}: direction {shown(stated)}; max or min")
    unit = str(getattr(function, "unit", ""))
    values = _called(name, function, original, original, samples)
    metrics = tuple(Metric(_metric_name(name, key), unit, stated, f"{name}, your own") for key in values)
    return OwnMetric(name, function, metrics)


def _metric_name(name: str, key: str) -> str:
    return key if key != MAIN else name.rpartition(":")[2].rpartition(".")[2]


def _called(
    name: str, function: Callable[..., Any], outputs: Outputs, original: Outputs, samples: Samples
) -> dict[str, float]:
    with told(f"metric {name}"):
        given = function(outputs, original, samples)
    values = given if isinstance(given, Mapping) else {MAIN: given}
    if not values:
        raise TrilobitError(f"metric {name}: gave an empty dict; give a number, or several by name")
    return {str(key): _number(name, value) for key, value in values.items()}


def _number(name: str, value: Any) -> float:
    try:
        number = float(np.asarray(value, np.float64).reshape(()))
    except (TypeError, ValueError):
        raise TrilobitError(f"metric {name}: gave {shown(value)}, which is no number") from None
    if math.isnan(number):
        raise TrilobitError(f"metric {name}: gave NaN; give a number for every network, also for a bad one")
    return number
