"""`LatencyPredictor`: whole networks' latency (or energy) from a few measured ones.

Latency is close to a sum over layers, so the predictor is a Gaussian process on a sum over genes, whose terms
it believes to be alike: the same option of two choices that offer the same options costs about the same,
more so where they are neighbours. A smooth part takes what does not add up. How much of each there is, the
targets decide, and also whether the error grows with the latency, and whether it is latency that adds up or
its logarithm: on some devices and between formats, what a choice costs is a share of the rest.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Protocol, Self

import numpy as np

from predictors.assessment.conformal import calibrate
from predictors.features import ARCHITECTURE, POLICY, Encoding, encode, indicators
from predictors.latency.components import (
    CONSTANT,
    Process,
    Variances,
    condition,
    distrust_outliers,
    fit_process,
)
from predictors.linalg import Floats
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CHUNK, CostTable
from supernet.space.space import Choice, Genomes, SearchSpace

INDICATED = 16  # options of numbers beyond which a choice is its number alone
REACH = 0.2  # of all choices of one sort: how far neighbours are alike
RISE = 3.0  # the slowest networks' noise is up to this much more than the fastest's, as a multiple of it
FLOOR = 1e-3  # smallest std, in standard deviations of the targets
FARTHEST = 3.0  # beyond the fitted logarithms no prediction goes: a factor of 20
TINY = 1e-12

# Variances that are expected, in those of the targets: each of them is learned.
TIED, NEAR, OWN, SMOOTH, COSTS = 0.5, 0.2, 0.1, 0.05, 1.0
AGREED = 0.85  # correlation with other devices' mean that is expected
SHARED, MIXED = 0.1, 0.3  # of other devices: how far off that is, and what each adds to their mean
REST = 0.1  # what genes still explain beside other devices
NOISE = 0.02  # of a network, in the variance of the targets
BELIEVED_NOISE = 0.1  # until it is learned


class Sources(Protocol):
    """What other devices say of a network; see `predictors.latency.device_transfer`."""

    def __call__(self, genomes: Genomes) -> Floats:
        """Return standardised latency (n, d) of genomes (n, g) on each of d devices; equal networks, equal
        rows.
        """
        ...

    def logs(self, genomes: Genomes) -> Floats:
        """Return standardised logarithms (n, d) of the same."""
        ...


@dataclass(frozen=True, eq=False)
class Description:
    """Genomes as numbers x of which latency is a weighted sum, and which of the weights are alike.

    Attributes:
        encoding: of the genes.
        costs, sources: what else is known of a network.
        logs: whether it is the logarithm of latency that is such a sum; costs and sources are then read as
            logarithms too.
        centre, scale: (f,) of all numbers.
        slopes: (f, b) weights that may be expected, one belief per column: that latency goes with the mean
            of other devices, or with one of them; none without other devices.
        likeness: (m, f, f) covariance of the weights in each part; x likeness x' is 1 on average.
        expected: (m + 1,) variance of each part, and last of the smooth one.
    """

    encoding: Encoding
    costs: CostTable | None
    sources: Sources | None
    logs: bool
    centre: Floats
    scale: Floats
    slopes: Floats
    likeness: Floats
    expected: Floats

    def __call__(self, genomes: Genomes) -> Floats:
        """Return (n, f) numbers of genomes (n, g)."""
        x = _numbers(self.encoding, self.costs, self.sources, self.logs, genomes)
        return np.asarray((x - self.centre) / self.scale)

    def grams(self, x: Floats, other: Floats) -> Floats:
        """Return the covariance (m + 1, n, k) of networks x (n, f) and others (k, f) in each part."""
        linear = x @ (self.likeness @ other.T)
        metric = self.likeness.mean(axis=0)
        across = linear.mean(axis=0)
        distance = _norms(x, metric)[:, None] + _norms(other, metric) - 2 * across
        return np.concatenate([linear, np.exp(-np.maximum(distance, 0) / 2)[None]])

    def own(self, x: Floats, parts: Floats) -> Floats:
        """Return the variance (n,) of networks x (n, f), given the variance of each part (m + 1,)."""
        linear = np.tensordot(parts[:-1], self.likeness, 1)
        return np.asarray(_norms(x, linear) + parts[-1] + CONSTANT)


def _norms(x: Floats, metric: Floats) -> Floats:
    return np.asarray(((x @ metric) * x).sum(axis=1))


def _numbers(
    encoding: Encoding, costs: CostTable | None, sources: Sources | None, logs: bool, genomes: Genomes
) -> Floats:
    parts = [encoding(genomes).astype(np.float64)]
    if costs is not None:
        sums = costs(encoding.space.canonical(genomes))
        logged = costs.least > 0 if logs else np.zeros(sums.shape[1], bool)  # others may be 0: no logarithm
        parts.append(np.where(logged, np.log(np.maximum(sums, TINY)), sums))
    if sources is not None:
        parts.append(sources.logs(genomes) if logs else sources(genomes))
    return np.hstack(parts)


def _options(choice: Choice) -> Floats:
    """Return (r, k) an indicator per option and, where options are numbers, the number itself; a dead gene is
    0.
    """
    if any(isinstance(option, str) for option in choice.options):
        return indicators(choice)
    values = np.array(choice.options, np.float64)[None]
    values = values / (values.std() or np.abs(values).max() or 1.0)
    return values if len(choice.options) > INDICATED else np.vstack([indicators(choice), values])


def describe(
    space: SearchSpace,
    costs: CostTable | None,
    sources: Sources | None,
    genomes: Genomes,
    *,
    logs: bool = False,
) -> Description:
    """Return a `Description` whose scales are those of these genomes (n, g)."""
    encoding = encode(space, ARCHITECTURE + POLICY, _options)
    x = _numbers(encoding, costs, sources, logs, genomes)
    genes, others = len(encoding.columns), len(sources(genomes[:1])[0]) if sources is not None else 0
    priced = slice(genes, x.shape[1] - others)
    centre, scale = x.mean(axis=0), np.ones(x.shape[1])
    scale[priced] = np.maximum(x[:, priced].std(axis=0), TINY)
    x = (x - centre) / scale
    parts = _parts(space, encoding, x.shape[1] - genes - others, others)
    likeness = np.array([part.spread_out(x) for part in parts])
    smooth = SMOOTH * (REST if others else 1.0)
    expected = np.array([*(part.variance for part in parts), smooth])
    slopes = _device_slopes(x, others)
    return Description(encoding, costs, sources, logs, centre, scale, slopes, likeness, expected)


@dataclass(frozen=True, eq=False)
class Part:
    """Weights that are alike: one part of the covariance of latency.

    Attributes:
        start: the first of the numbers x that they are weights of.
        likeness: (k, k) covariance of the weights of k numbers from there on, up to a factor.
        variance: that is expected of the part, in those of the targets.
    """

    start: int
    likeness: Floats
    variance: float

    def spread_out(self, x: Floats) -> Floats:
        """Return the covariance (f, f) of all weights, which gives networks x (n, f) a variance of 1."""
        whole, own = np.zeros((x.shape[1], x.shape[1])), slice(self.start, self.start + len(self.likeness))
        whole[own, own] = self.likeness
        return np.asarray(whole / max(_norms(x, whole).mean(), TINY))


def _parts(space: SearchSpace, encoding: Encoding, costs: int, others: int) -> list[Part]:
    """Return the parts of a covariance of numbers that are of genes, of costs, and of other devices."""
    tied, near, own = _alike(space, encoding)
    first_cost, first_device = len(own), len(own) + costs
    parts = [Part(0, tied, TIED), Part(0, near, NEAR), Part(0, own, OWN)]
    if costs:
        parts.append(Part(first_cost, np.eye(costs), COSTS))
    if not others:
        return parts
    mean = np.full((others, others), 1 / others)
    devices = [Part(first_device, mean, SHARED), Part(first_device, np.eye(others) - mean, MIXED)]
    return [*(replace(part, variance=REST * part.variance) for part in parts), *devices]


def _device_slopes(x: Floats, others: int) -> Floats:
    """Return the weights (f, b) that are expected where the last numbers are of other devices."""
    slopes = np.zeros((x.shape[1], 1 + others if others else 1))
    if others:
        slopes[-others:] = np.column_stack([np.ones(others), np.eye(others)])
        slopes *= AGREED / np.maximum((x @ slopes).std(axis=0), TINY)
    return slopes


def _alike(space: SearchSpace, encoding: Encoding) -> tuple[Floats, Floats, Floats]:
    """Return the likeness (f, f) of weights, three of them: equal for an option wherever it stands, alike
    where near, and unrelated.
    """
    sorts: dict[tuple[object, ...], list[int]] = {}
    for column, choice in enumerate(space.choices):
        sorts.setdefault((choice.kind, choice.options), []).append(column)
    place = {
        column: (number, (i + 1) / len(columns))
        for number, columns in enumerate(sorts.values())
        for i, column in enumerate(columns)
    }
    sort, along = np.array([place[column] for column in encoding.columns.tolist()]).reshape(-1, 2).T
    first = np.searchsorted(encoding.columns, encoding.columns)  # of the same choice
    row = np.arange(len(first)) - first
    # a choice that others hang on is told by what it keeps alive
    parents = {space.columns[name] for choice in space.choices for name, _ in choice.active_if}
    leaf = ~np.isin(encoding.columns, sorted(parents))
    tied = ((sort[:, None] == sort) & (row[:, None] == row) & leaf).astype(np.float64)
    near = tied * np.exp(-np.abs(along[:, None] - along) / REACH)
    return tied, near, np.eye(len(row))


@dataclass(frozen=True)
class Noise:
    """How the noise's variance goes with the latency; all standardised."""

    low: float
    high: float
    rise: float

    def __call__(self, latency: Floats) -> Floats:
        """Return relative variances (n,)."""
        level = np.clip((latency - self.low) / max(self.high - self.low, TINY), 0.0, 1.5)
        return (1 + self.rise * level) ** 2


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `LatencyPredictor.fit` learns.

    Attributes:
        description: of genomes.
        slopes: (f,) the weights that were expected.
        x: (n, f) the fitted ones.
        process: of the standardised targets, or of their standardised logarithms, less what was expected.
        noise: of a new network.
        mean, scale: of the targets or their logarithms.
        low, high: between which logarithms are.
        negative_log_evidence: negative log density of the targets in their own unit, less a constant.
        floor: smallest standard deviation.
        std_scale: factor from the process's standard deviation to that of the error.
    """

    description: Description
    slopes: Floats
    x: Floats
    process: Process
    noise: Noise
    mean: float
    scale: float
    low: float
    high: float
    negative_log_evidence: float
    floor: float
    std_scale: float = 1.0

    def __call__(self, genomes: Genomes) -> tuple[Floats, Floats]:
        """Return medians (n,) of genomes (n, g), and standard deviations (n,) of their error."""
        return self.in_unit(*_predict(self, genomes))

    def in_unit(self, mean: Floats, std: Floats) -> tuple[Floats, Floats]:
        """Return medians and standard deviations of targets, of standardised means and deviations (n,)."""
        mean, std = self.mean + self.scale * mean, self.scale * std
        if self.description.logs:
            mean = np.exp(np.clip(mean, self.low, self.high))
            std = mean * std
        return mean, self.std_scale * std


@dataclass(frozen=True, eq=False)
class LatencyPredictor:
    """Posterior mean and standard deviation, noise included. See `predictors.predictor.Predictor`.

    Args:
        seed: chooses the rows that variances are learned on, where there are many.
        costs: sums that latency may follow, such as multiply-adds.
        sources: what other devices say.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int = 0
    costs: CostTable | None = None
    sources: Sources | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: Floats) -> Self:
        check_rows(self.space, genomes, targets)
        order = np.random.default_rng(self.seed).permutation(len(targets))
        genomes, targets = genomes[order], targets[order]
        scales = (False, True) if targets.min() > 0 else (False,)
        fits = [
            _learn(describe(self.space, self.costs, self.sources, genomes, logs=logs), genomes, targets)
            for logs in scales
        ]
        return replace(self, fitted=min(fits, key=lambda fit: fit.negative_log_evidence))

    def predict(self, genomes: Genomes) -> Prediction:
        if self.fitted is None:
            raise not_fitted(self)
        mean, std = np.empty(len(genomes)), np.empty(len(genomes))
        for start in range(0, len(genomes), CHUNK):
            rows = slice(start, start + CHUNK)
            mean[rows], std[rows] = self.fitted(genomes[rows])
        return Prediction(mean, np.maximum(std, self.fitted.floor))

    @property
    def negative_log_evidence(self) -> float:
        """Negative log density of the fitted targets, less a constant: of two descriptions of the same
        networks, the one of which it is smaller fits the device (see `evidence`).

        Raises:
            TrilobitError: not fitted.
        """
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted.negative_log_evidence


def evidence(fits: Sequence[LatencyPredictor]) -> Floats:
    """Return (k,) how likely each of k descriptions of the same networks is, after the same targets: weights
    of what they predict.

    Raises:
        TrilobitError: one is not fitted.
    """
    losses = np.array([fit.negative_log_evidence for fit in fits])
    likelihood = np.exp(losses.min() - losses)
    return np.asarray(likelihood / likelihood.sum())


def _learn(description: Description, genomes: Genomes, targets: Floats) -> Fitted:
    """Fit to genomes (n, g) and targets (n,) on the scale of the description; calibrated in the unit of
    the targets.
    """
    scaled = np.log(targets) if description.logs else targets
    mean, scale = float(scaled.mean()), float(scaled.std()) or 1.0
    x, standard = description(genomes), (scaled - mean) / scale
    process, noise, slopes = _fit(description, x, standard)
    # a density per unit of the targets: of what was standardised, and of logarithms (d log t = d t / t)
    loss = process.negative_log_evidence + len(targets) * np.log(scale)
    loss += float(scaled.sum()) if description.logs else 0.0
    floor = FLOOR * (float(targets.std()) or 1.0)
    limits = float(scaled.min()) - FARTHEST, float(scaled.max()) + FARTHEST
    fitted = Fitted(description, slopes, x, process, noise, mean, scale, *limits, loss, floor)
    errors, spread = process.leave_one_out()
    predicted, std = fitted.in_unit(standard - errors, spread)
    return replace(fitted, std_scale=calibrate(predicted - targets, std))


def _fit(description: Description, x: Floats, targets: Floats) -> tuple[Process, Noise, Floats]:
    """Fit with even or with rising noise, whichever is likelier; rows far off all others count for less."""
    grams, expected = description.grams(x, x), Variances(description.expected, NOISE)
    slopes = prior_slopes(grams, x, targets, description)
    prior = x @ slopes
    targets = targets - prior
    even = fit_process(grams, targets, expected, np.ones(len(targets)))
    smooth = prior + even.fitted(targets)
    rising = Noise(float(smooth.min()), float(smooth.max()), RISE)
    process, noise = fit_process(grams, targets, expected, rising(smooth)), rising
    if even.negative_log_evidence <= process.negative_log_evidence:
        process, noise = even, replace(rising, rise=0.0)
    return distrust_outliers(process, grams, targets, expected), noise, slopes


def prior_slopes(grams: Floats, x: Floats, targets: Floats, description: Description) -> Floats:
    """Return the mean (f,) of expected slopes, each as probable as it makes the targets."""
    if description.slopes.shape[1] == 1:
        return np.asarray(description.slopes[:, 0])
    variances = Variances(description.expected, BELIEVED_NOISE)
    precision = condition(grams, targets, variances, np.ones(len(targets))).precision
    missed = targets[:, None] - x @ description.slopes
    logs = -(missed * (precision @ missed)).sum(axis=0) / 2
    weights = np.exp(logs - logs.max())
    return np.asarray(description.slopes @ (weights / weights.sum()))


def _predict(fitted: Fitted, genomes: Genomes) -> tuple[Floats, Floats]:
    """Return the standardised mean and standard deviation (n,) of genomes (n, g)."""
    description, process = fitted.description, fitted.process
    parts = process.variances.parts
    x = description(genomes)
    across = np.tensordot(parts, description.grams(x, fitted.x), 1) + CONSTANT
    mean = x @ fitted.slopes + across @ process.alpha
    explained = ((across @ process.precision) * across).sum(axis=1)
    variance = np.maximum(description.own(x, parts) - explained, 0.0)
    return mean, np.sqrt(variance + process.variances.noise * fitted.noise(mean))
