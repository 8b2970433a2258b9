"""What the terms of a policy's time are expected to be before whole policies say: from the times of kernels
inside a few networks where the runtime tells those, else from multiply-adds and bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hw_profiles.graph.counts import macs
from predictors.latency.policy_terms import IN_REALS, PolicyTerms, Term, tensor_bytes
from predictors.linalg import Floats

Observed = Mapping[Term, float]  # seconds by term, and by (unit, `IN_REALS`); of one policy
SAVED = 0.4  # of a unit's time on other kernels than fp32's, where nothing says more
CONVERTED_SHARE = 0.5  # of the network's time, for converting every tensor that can be; the same
SMALLEST = 1e-3  # of the network's time: no term is believed more closely than to that share of a term


@dataclass(frozen=True, eq=False)
class Prior:
    """What is expected of each term.

    Attributes:
        mean_s: (d,) seconds.
        scale_s: (d,) seconds of the kernels behind it, in which its own error is expected to be alike.
        own: (2,) that error's expected standard deviation in those, of units and of conversions.
        common: (2,) the expected standard deviation of a factor that all means share, of the same.
    """

    mean_s: Floats
    scale_s: Floats
    own: tuple[float, float]
    common: tuple[float, float]


def prior_of_work(terms: PolicyTerms, total_s: float) -> Prior:
    """Return what is expected where only the time of the network in fp32 is known: a unit takes time as it
    multiplies, a conversion as it moves bytes.
    """
    model = terms.model
    work = {unit.name: float(macs(unit.layer)) for unit in model.units}
    moved = {tensor: float(tensor_bytes(model, tensor)) for tensor in model.shapes}
    unit_s = total_s / max(sum(work.values()), 1.0)
    byte_s = CONVERTED_SHARE * total_s / max(sum(moved.values()), 1.0)
    least_s = SMALLEST * total_s
    scale = [
        moved.get(term.name, 0.0) * byte_s if term.converts else work[term.name] * unit_s
        for term in terms.terms
    ]
    scale_s = np.maximum(np.array(scale, np.float64), least_s)
    mean_s = np.where([term.converts for term in terms.terms], scale_s, -SAVED * scale_s)
    return Prior(mean_s, scale_s, (0.4, 0.7), (1.0, 1.0))


def prior_of_kernels(terms: PolicyTerms, observed: Sequence[Observed], total_s: float) -> Prior:
    """Return what is expected after some policies' kernels were timed: the median of each term. Those that
    none of the policies has are expected to be as others of their kind.
    """
    medians = _medians(observed)
    known = [_known(term, medians) for term in terms.terms]
    mean_s = np.array([value[0] if value else np.nan for value in known], np.float64)
    scale_s = np.array([value[1] if value else np.nan for value in known], np.float64)
    for kind in ("unit", "quantize", "dequantize"):
        some = np.array([term.kind == kind for term in terms.terms], bool)
        sizes = np.array([_size(term, terms, medians) for term in terms.terms], np.float64)
        _fill(mean_s, scale_s, sizes, some)
    scale_s = np.maximum(scale_s, SMALLEST * total_s)
    return Prior(mean_s, scale_s, (0.1, 0.25), (0.1, 0.15))


def _medians(observed: Sequence[Observed]) -> dict[Term, float]:
    terms = {term for policy in observed for term in policy}
    return {term: float(np.median([policy[term] for policy in observed if term in policy])) for term in terms}


def _known(term: Term, medians: Mapping[Term, float]) -> tuple[float, float] | None:
    """Return the expected seconds of a term and those behind it; None where they were not seen."""
    if term not in medians:
        return None
    if term.converts:
        return medians[term], medians[term]
    reals_s = medians.get(Term("unit", term.name, IN_REALS.name))
    return None if reals_s is None else (medians[term] - reals_s, medians[term] + reals_s)


def _size(term: Term, terms: PolicyTerms, medians: Mapping[Term, float]) -> float:
    """Return what the time of a term goes with: of a unit its time in fp32, of a conversion the bytes."""
    if term.converts:
        return float(tensor_bytes(terms.model, term.name))
    return medians.get(Term("unit", term.name, IN_REALS.name), 0.0)


def _fill(mean_s: Floats, scale_s: Floats, sizes: Floats, some: np.ndarray) -> None:
    """Give terms that were not seen what the others of their kind have for their size."""
    seen, unseen = some & np.isfinite(mean_s), some & ~np.isfinite(mean_s)
    if not unseen.any():
        return
    total = sizes[seen].sum()
    ratio, spread = (mean_s[seen].sum() / total, scale_s[seen].sum() / total) if total > 0 else (0.0, 0.0)
    mean_s[unseen] = ratio * sizes[unseen]
    scale_s[unseen] = 2 * spread * sizes[unseen]
