"""Which networks of a tuned front are meant."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from nas.export.picks import knee, picked
from nas.run.tuned_document import ALL_INT8, PartQuality, TunedFront, TunedMetric, TunedNetwork, cost_of
from nas.run.wanted import Bounded
from nas.search.objectives import Objective
from nas.search.units import show
from supernet.tasks.metric import KL

Floats = NDArray[np.float64]
SHARES = ("accuracy", "agreement")  # metrics that `fastest>=SHARE` may be about, the first that there is


def pick(front: TunedFront, picks: Sequence[str], count: int = 0) -> list[TunedNetwork]:
    """Return the networks of a front that `picks` names, each once, in the order of the front.

    Args:
        picks: any of `knee`: the best compromise; `fastest>=97%`: the quickest with so much accuracy, or
            agreement where there are no labels; `best<=8ms`: the best by the main metric that is so quick;
            and what else `picked` takes.
        count: networks without `picks`, well-spread ones; 0 takes all.

    Raises:
        TrilobitError: no network is meant, or several are by the beginning of an id.
    """
    return picked(
        front.candidates,
        picks,
        count,
        minimised=_minimised(front),
        best=partial(_best_row, front),
        bounded=partial(_bounded, front),
        noun="files",
    )


def compromise(front: TunedFront) -> TunedNetwork:
    """Return the best compromise of a front, what `knee` picks: of the files whose answers are no worse than
    those of everything in int8, since that is had without any search.
    """
    return front.candidates[_best_row(front)]


def _best_row(front: TunedFront) -> int:
    minimised, rows = _minimised(front), np.arange(len(front.candidates))
    plain = next((each.judging for each in front.references if each.name == ALL_INT8), None)
    if plain is not None:
        rows = np.flatnonzero(minimised[:, 0] <= _errors(front.metric, [plain])[0])
    return int(rows[knee(minimised[rows])]) if len(rows) else knee(minimised)


def _bounded(front: TunedFront, bound: Bounded) -> int:
    """Return the row of the quickest that is good enough, or of the best that is quick enough.

    Raises:
        TrilobitError: there is none, or nothing was timed.
    """
    if all(entry.latency is None for entry in front.candidates):
        raise TrilobitError(f"--pick {bound.text!r}: these files were not timed; write knee, all, or an id")
    latency = np.array([entry.latency.median_s if entry.latency else np.inf for entry in front.candidates])
    if bound.fastest:
        share = _share(front, bound)
        values = _values(_parts(front), share)
        allowed, order, nearest = values >= bound.limit.value, latency, float(values.max())
        unmet = f"{share.name} >= {bound.text}; the nearest has {nearest:.2%}"
    else:
        original = front.original.latency
        limit_s = bound.limit.resolve(original.median_s if original else 0.0)
        allowed, order, nearest = latency <= limit_s, _minimised(front)[:, 0], float(latency.min())
        seconds = Objective("latency", "s", "min", origin="device")
        unmet = f"latency <= {bound.text}; the nearest has {show(seconds, nearest)}"
    if not allowed.any():
        raise TrilobitError(f"no file of the front has {unmet}")
    return int(np.where(allowed, order, np.inf).argmin())


def _share(front: TunedFront, bound: Bounded) -> TunedMetric:
    by_name = {metric.name: metric for metric in front.metrics}
    for name in SHARES:
        if name in by_name:
            return by_name[name]
    raise TrilobitError(
        f"--pick 'fastest>={bound.text}': the answers of this network have neither {' nor '.join(SHARES)}; "
        "write knee, best<=LATENCY, all, or an id"
    )


def _parts(front: TunedFront) -> list[PartQuality]:
    return [entry.judging or entry.choosing for entry in front.candidates]


def _values(parts: Sequence[PartQuality], metric: TunedMetric) -> Floats:
    return np.array([part.metrics[metric.name].value for part in parts])


def _errors(main: TunedMetric, parts: Sequence[PartQuality]) -> Floats:
    """Return (n,) the main metric, less is better. Of a divergence it is the root, the size of the error, as
    the search weighs it: one bad file would hide what tells the others apart.
    """
    values = _values(parts, main) * (-1.0 if main.direction == "max" else 1.0)
    return np.asarray(np.sqrt(np.maximum(values, 0.0)) if main.unit == KL.unit else values)


def _minimised(front: TunedFront) -> Floats:
    """Return (n, m) the main metric and the costs, such as latency and size, less is better."""
    columns = [[cost_of(entry, cost.name) for entry in front.candidates] for cost in front.costs]
    costs = [[np.inf if value is None else value for value in column] for column in columns]
    return np.column_stack([_errors(front.metric, _parts(front)), *costs])
