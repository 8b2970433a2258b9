"""`KernelPredictor`: what a unit costs on a device of which only some units were measured.

A Gaussian process on the (signed) logarithm of the cost: a line through the features that all units share,
plus a smooth part with a length scale per feature, learned by marginal likelihood (Rasmussen & Williams 2006,
chapter 5). Profiles of other devices shift its mean and are features.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Kernel, Matern, WhiteKernel

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.measure.measurement import Estimate
from hw_profiles.profiles.profile import DeviceProfile
from predictors.assessment.conformal import calibrate
from predictors.latency.unit_features import Floats, rough_cost, unit_features
from predictors.linalg import Factor, leave_one_out, minimise

LEARNED_ON = 150  # rows that choose the length scales; all rows are then fitted with them
STEPS = 40  # of the optimiser: more changes nothing measurable
FEW = 12  # rows below which the length scales stay what they are
LINEAR_SHARE = 0.1  # costs below this share of the median one are treated linearly, since some are 0 or less
STEEPEST = 1.5  # a prediction stays within this much, in logarithms, of what was measured
UNSEEN_STD = 0.7  # of a logarithm: how far a device nothing is known of may be off another, a factor of 2
ROW_ERROR = 0.04  # share of a row that it is off what the features can say, at least
TINY = 1e-9  # keeps matrices invertible
OUTLIER = 4.0  # standard deviations at which a row is no longer taken at its word
CONSIDERED = 1500  # units to choose from at a time: a random part of larger spaces
UNUSED = 0.02  # weight of a unit that random networks lack, as a share of the mean one
STATE_PRICE = 1.0  # of a (shape, format) that nothing was measured in yet, in units

State = TensorType  # shape and format


@dataclass(frozen=True)
class Scale:
    """Seconds as numbers to learn: logarithms, but linear within `linear_s` of 0.

    Rows are differences of times, so cheap ones can come out at or below 0.
    """

    linear_s: float

    def forward(self, seconds: Floats) -> Floats:
        """Return (n,) logarithms, all but a constant, of seconds (n,)."""
        return np.asarray(np.arcsinh(seconds / (2 * self.linear_s)))

    def back(self, logs: Floats) -> Floats:
        """Return the inverse of `forward`."""
        return np.asarray(2 * self.linear_s * np.sinh(logs))

    def slope(self, logs: Floats) -> Floats:
        """Return (n,) seconds per unit of the logarithm."""
        return np.asarray(2 * self.linear_s * np.cosh(logs))


def scale_of(seconds: Floats) -> Scale:
    """Return the scale for a device with such rows (n,)."""
    return Scale(max(LINEAR_SHARE * float(np.median(np.abs(seconds))), 1e-12))


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `KernelPredictor.fit` learns.

    Attributes:
        scale: between seconds and logarithms.
        process: of what is left of the logarithms without mean and sources.
        mean: of the same.
        low, high: bounds of a predicted logarithm.
        std_scale: factor from the process's standard deviation to that of the error.
    """

    scale: Scale
    process: GaussianProcessRegressor
    mean: float
    low: float
    high: float
    std_scale: float


@dataclass(frozen=True, eq=False)
class Source:
    """Another device's profile, where it has no row predicted from those that it has."""

    profile: DeviceProfile
    predictor: "KernelPredictor"
    scale: Scale

    def logs(self, layers: Sequence[Layer]) -> Floats:
        """Return (n,) logarithms of the cost on that device."""
        seconds, _ = self.predictor.predict_s(layers)
        for i, layer in enumerate(layers):
            if usable(self.profile, layer):
                seconds[i] = self.profile.table[layer].median_s
        return self.scale.forward(seconds)


@dataclass(frozen=True, eq=False)
class KernelPredictor:
    """Predicts seconds of units from measured ones. Immutable: `fit` gives a new one.

    Args:
        seed: chooses the rows that length scales are learned on, where there are many.
        sources: what other devices say.
        calibrated: whether standard deviations are made to agree with errors, which takes as long again.
    """

    _: KW_ONLY
    seed: int = 0
    sources: tuple[Source, ...] = ()
    calibrated: bool = True
    fitted: Fitted | None = None

    def fit(self, layers: Sequence[Layer], seconds: Floats, std_s: Floats | None = None) -> Self:
        """Fit to units, their seconds (n,), and the standard error of each (n,).

        Raises:
            TrilobitError: no unit, or a time that is not finite.
        """
        if not len(layers) or not np.isfinite(seconds).all():
            raise TrilobitError(f"{len(layers)} measured units; a predictor needs one or more, finite times")
        scale = scale_of(seconds)
        x, logs = self._features(layers), scale.forward(seconds)
        rest = logs - self._prior(layers)
        mean = float(np.median(rest))
        noise = ((std_s if std_s is not None else 0) / scale.slope(logs)) ** 2 + TINY
        rng = np.random.default_rng(self.seed)
        process = _fit_process(x, rest - mean, noise, rng)
        std_scale = _std_scale(x, rest - mean, noise, rng) if self.calibrated else 1.0
        low, high = float(logs.min()) - STEEPEST, float(logs.max()) + STEEPEST
        return replace(self, fitted=Fitted(scale, process, mean, low, high, std_scale))

    def predict(self, layers: Sequence[Layer]) -> list[Estimate]:
        """Return an estimate for every unit, never below 0.

        Raises:
            TrilobitError: not fitted, and without a source.
        """
        mean_s, std_s = self.predict_s(layers)
        return [Estimate(m, s) for m, s in zip(np.maximum(mean_s, 0).tolist(), std_s.tolist(), strict=True)]

    def predict_s(self, layers: Sequence[Layer]) -> tuple[Floats, Floats]:
        """Return (n,) seconds, which may come out below 0, and (n,) standard deviations of their error.

        Raises:
            TrilobitError: not fitted, and without a source.
        """
        scale, logs, std = self._predict_logs(layers)
        # half the width of the interval in seconds: the scale is far from linear across a wide one
        return scale.back(logs), scale.slope(logs) * np.sinh(np.minimum(std, STEEPEST))

    def covariance(self, layers: Sequence[Layer]) -> tuple[Floats, float]:
        """Return the covariance (n, n) of the logarithms of units given what was measured, and a row's
        variance.
        """
        x = self._features(layers)
        if self.fitted is None:
            kernel, std_scale = default_kernel(x.shape[1]), 1.0
            covariance = kernel(x)
        else:
            kernel, std_scale = self.fitted.process.kernel_, self.fitted.std_scale
            _, covariance = self.fitted.process.predict(x, return_cov=True)
        noise = float(kernel.k2.noise_level)
        return (covariance - noise * np.eye(len(x))) * std_scale**2, noise * std_scale**2

    def rough_s(self, layers: Sequence[Layer]) -> Floats:
        """Return (n,) positive costs, for what they are worth: in arbitrary units before anything was
        measured.
        """
        if self.fitted is None and not self.sources:
            return rough_cost(layers)
        scale, logs, _ = self._predict_logs(layers)
        return scale.slope(logs)

    def _predict_logs(self, layers: Sequence[Layer]) -> tuple[Scale, Floats, Floats]:
        prior, fitted = self._prior(layers), self.fitted
        if fitted is None:
            if not self.sources:
                raise TrilobitError(
                    "no unit was measured and no other profile given: nothing to predict from"
                )
            scale = Scale(float(np.exp(np.mean([np.log(source.scale.linear_s) for source in self.sources]))))
            return scale, prior, np.full(len(layers), UNSEEN_STD)
        mean, std = fitted.process.predict(self._features(layers), return_std=True)
        logs = np.clip(mean + fitted.mean + prior, fitted.low, fitted.high)
        return fitted.scale, logs, fitted.std_scale * std

    def _features(self, layers: Sequence[Layer]) -> Floats:
        return np.column_stack([unit_features(layers), *(source.logs(layers) for source in self.sources)])

    def _prior(self, layers: Sequence[Layer]) -> Floats:
        """Return (n,) what the other devices say on average; 0 without any."""
        logs = [source.logs(layers) for source in self.sources] or [np.zeros(len(layers))]
        return np.asarray(np.mean(logs, axis=0))


def leave_one_out_errors(process: GaussianProcessRegressor) -> tuple[Floats, Floats]:
    """Return (n,) errors at the fitted rows, each predicted from all others, and (n,) their standard
    deviations.
    """
    return leave_one_out(Factor(process.L_).inverse, process.alpha_)


def usable(profile: DeviceProfile, layer: Layer) -> bool:
    """Return whether a profile has a measured number for a layer that it does not refuse."""
    row = profile.table.get(layer)
    return row is not None and row.error is None and profile.unreliable(layer) is None


def source(profile: DeviceProfile, *, seed: int = 0) -> Source:
    """Return another device's profile as something to start from.

    Raises:
        TrilobitError: it has no measured row.
    """
    predictor = fit_profile(profile, seed=seed, calibrated=False)
    if predictor.fitted is None:
        raise TrilobitError(f"profile {profile.device.name} has no measured row: nothing to start from")
    return Source(profile, predictor, predictor.fitted.scale)


def fit_profile(
    profile: DeviceProfile, *, sources: Sequence[Source] = (), seed: int = 0, calibrated: bool = True
) -> KernelPredictor:
    """Return a predictor fitted on the usable rows of a profile; unfitted where there is none.

    Sources that do not make the rows that there are more likely are left aside: a device may be too
    different, or of another space.
    """
    layers = [layer for layer in profile.table if usable(profile, layer)]
    predictor = KernelPredictor(seed=seed, sources=tuple(sources), calibrated=calibrated)
    if not layers:
        return predictor
    seconds = np.array([profile.table[layer].median_s for layer in layers])
    std_s = np.array([profile.std_s(layer) for layer in layers])
    fits = [predictor.fit(layers, seconds, std_s)]
    if sources and len(layers) >= FEW:
        fits.append(replace(predictor, sources=()).fit(layers, seconds, std_s))
    return min(fits, key=_leave_one_out_loss) if len(fits) > 1 else fits[0]


def _leave_one_out_loss(predictor: KernelPredictor) -> float:
    """Return the mean negative log density of the fitted rows, each predicted from all others, less a
    constant.
    """
    assert predictor.fitted is not None
    errors, spread = leave_one_out_errors(predictor.fitted.process)
    return float(np.mean((errors / spread) ** 2 / 2 + np.log(spread)))


def fill(
    profile: DeviceProfile,
    layers: Sequence[Layer],
    *,
    sources: Sequence[Source] = (),
    rng: np.random.Generator,
) -> DeviceProfile:
    """Return the profile with an estimate for every layer that has no usable measured number. Rows with an
    error keep it and get none: the device cannot run them.

    Raises:
        TrilobitError: nothing was measured yet and there are no sources.
    """
    unmeasured = [
        layer
        for layer in dict.fromkeys(layers)
        if not usable(profile, layer) and (layer not in profile.table or profile.table[layer].error is None)
    ]
    if not unmeasured:
        return profile
    seed = int(rng.integers(2**31))
    predictor = fit_profile(profile, sources=sources, seed=seed)
    estimates = dict(zip(unmeasured, predictor.predict(unmeasured), strict=True))
    return replace(profile, estimates={**profile.estimates, **estimates})


def default_kernel(features: int) -> Kernel:
    """Return the kernel before anything was measured: a line, something smooth, and the noise of a row."""
    smooth = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.full(features, 4.0), (0.5, 50.0), nu=2.5)
    line = ConstantKernel(1.0, (1e-2, 1e2)) * DotProduct(1.0, "fixed")
    return smooth + line + WhiteKernel(2e-3, (ROW_ERROR**2, 3e-2))


def _fit_process(x: Floats, y: Floats, noise: Floats, rng: np.random.Generator) -> GaussianProcessRegressor:
    """Return a process on (n, d) features, (n,) targets of mean about 0 and (n,) noise variances."""
    kernel = default_kernel(x.shape[1])
    if len(y) >= FEW:
        some = rng.permutation(len(y))[:LEARNED_ON]
        kernel = _learn(kernel, x[some], y[some], noise[some])
    return _condition(kernel, x, y, noise)


def _std_scale(x: Floats, y: Floats, noise: Floats, rng: np.random.Generator) -> float:
    """Return the factor from a process's standard deviation to that of its error, 1 or more.

    Length scales fit the rows that they were learned on too well. So each half of the rows is judged, one
    left out at a time, with length scales learned on the other half.
    """
    if len(y) < FEW:
        return 1.0
    order, kernel = rng.permutation(len(y)), default_kernel(x.shape[1])
    errors, spread = np.empty(len(y)), np.empty(len(y))
    for held_out in (order[: len(y) // 2], order[len(y) // 2 :]):
        others = np.setdiff1d(order, held_out, assume_unique=True)[: LEARNED_ON // 2]
        learned = _learn(kernel, x[others], y[others], noise[others])
        all_errors, all_spread = leave_one_out_errors(_condition(learned, x, y, noise))
        errors[held_out], spread[held_out] = all_errors[held_out], all_spread[held_out]
    return max(calibrate(errors, spread), 1.0)


def _learn(kernel: Kernel, x: Floats, y: Floats, noise: Floats) -> Kernel:
    """Return the kernel with the length scales that make these rows most likely; columns that do not vary
    keep theirs.
    """
    varies = np.ptp(x, axis=0) > 0
    lengths = "k1__k1__k2__length_scale"  # of the smooth part, in `default_kernel`
    scales = kernel.get_params()[lengths].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of length scales at their bounds: features that do not matter
        learner = GaussianProcessRegressor(
            clone(kernel).set_params(**{lengths: scales[varies]}), alpha=noise, optimizer=_few_steps
        ).fit(x[:, varies], y)
    scales[varies] = learner.kernel_.get_params()[lengths]
    return learner.kernel_.set_params(**{lengths: scales})


def _condition(kernel: Kernel, x: Floats, y: Floats, noise: Floats) -> GaussianProcessRegressor:
    """Return the process given its kernel and all rows; rows far off all others count for little."""
    process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(x, y)
    errors, spread = leave_one_out_errors(process)
    doubtful = np.abs(errors) > OUTLIER * spread
    if doubtful.any():
        process.set_params(alpha=np.where(doubtful, noise + errors**2, noise)).fit(x, y)
    return process


def _few_steps(
    objective: Callable[..., Any], start: NDArray[np.float64], bounds: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    return minimise(objective, start, bounds, STEPS)


def choose_units(
    layers: Sequence[Layer],
    profile: DeviceProfile,
    n: int,
    *,
    rng: np.random.Generator,
    sources: Sequence[Source] = (),
    weights: Mapping[Layer, float] | None = None,
) -> tuple[Layer, ...]:
    """Return which n units to measure next, in the order of a greedy ALC design: distinct ones that `profile`
    has no row of.

    Greedily the one that most reduces the variance of the logarithms of all units, each as important as its
    share of a random network's time, for what it takes to measure: less where its context is measured.
    Cohn 1996, doi:10.1016/0893-6080(95)00137-9; Krause et al. 2008, JMLR 9. (By the square of the time, which
    the error of a sum would ask for, the first choices crowd around the heaviest units.)

    Args:
        sources: what other devices say, to start from.
        weights: how often each unit occurs in a random network; equally often without. Only ratios count.
    """
    seed, missing = int(rng.integers(2**31)), list(dict.fromkeys(profile.missing(layers)))
    if not 0 < n < len(missing):
        return tuple(missing[: max(n, 0)])
    considered = [missing[i] for i in np.sort(rng.permutation(len(missing))[: max(CONSIDERED, 2 * n)])]
    predictor = fit_profile(profile, sources=sources, seed=seed, calibrated=False)
    covariance, noise = predictor.covariance(considered)
    usage = np.array([1.0 if weights is None else weights.get(layer, 0.0) for layer in considered])
    usage = usage + UNUSED * (usage.mean() or 1.0)
    importance = usage * predictor.rough_s(considered)
    return _greedy(considered, covariance, noise, importance, _states(profile.table), n)


def _greedy(
    units: Sequence[Layer],
    covariance: Floats,
    noise: float,
    importance: Floats,
    states: set[State],
    n: int,
) -> tuple[Layer, ...]:
    """Return the n units that explain most for what they cost to measure, given their (m, m) covariance."""
    covariance, rows = covariance.copy(), list[int]()
    own = [_states([unit]) for unit in units]
    prepared = set(states)
    for _ in range(n):
        variance = covariance.diagonal() + noise
        price = np.array([1 + STATE_PRICE * len(unit_states - prepared) for unit_states in own])
        gain = importance @ covariance**2 / variance / price
        gain[rows] = -np.inf
        best = int(gain.argmax())
        rows.append(best)
        prepared |= own[best]
        column = covariance[:, best].copy()
        covariance -= np.outer(column, column / variance[best])
    return tuple(units[i] for i in rows)


def _states(layers: Iterable[Layer]) -> set[State]:
    """Return (shape, format) of the tensors around layers: each needs a context and a pooling to be measured
    in.
    """
    return {state for layer in layers for state in (*layer.inputs[:1], *layer.outputs[:1])}
