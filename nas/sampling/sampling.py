"""Which networks the accuracy predictor learns from: how the next ones are chosen, and when there are enough.

Everything is decided by a seed and by answers: asked again with the same answers, it goes the same way. So a
stopped run continues by replaying what it has stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hw_profiles.streams import Stream, open_stream
from nas.run.documents import StoppingDecision
from nas.run.registry import DEFAULT_STRATEGY as DEFAULT_STRATEGY
from nas.run.registry import STRATEGIES as STRATEGIES
from nas.search.loop import choose_finalists, search
from nas.search.searcher import make_searcher
from predictors.assessment.learning_curve import ALWAYS, CurvePoint, Rows, fit_power_law, learning_curve
from predictors.design.active import alc_design
from predictors.design.surrogate import (
    PRIOR,
    Embedding,
    Kernel,
    learn_kernel,
    points_at,
    posterior_mean,
    rank_normalised,
)
from supernet.space.space import Genomes, row_keys, unique_rows

Floats = NDArray[np.float64]
Gains = tuple[float, ...]  # of Kendall's tau, that the next batch promised after each batch so far
Draw = Callable[..., Genomes]  # (n, rng=) -> n random networks of one group

BATCH = 20
CONSIDERED = 1_000  # random networks that a batch is chosen from
FEWEST_TO_LEARN = 20  # answers before the sampler's own model is fitted to them

FEWEST = 80  # of a group, before its learning curve is believed
MIN_GAIN = 0.003  # of Kendall's tau, by the next batch
IN_A_ROW = 2  # batches that promise less: a curve of so few rows is noisy
SHARES = (0.25, 0.4, 0.6, 0.8, 1.0)  # points of the curve
FOLDS, REPEATS = 5, 4

FRONT_BUDGET = 4_000  # predicted networks, to find the front with


@dataclass(frozen=True)
class SamplingGroup:
    """One group of networks to evaluate, and how many.

    Attributes:
        name: for people.
        draw: (n, rng=) gives n random ones (n, g).
        project: makes any genomes (n, g) ones of this group.
        count: exactly so many; None stops where the learning curve promises too little...
        most: ...and at so many at the latest.
    """

    name: str
    draw: Draw
    project: Callable[[Genomes], Genomes]
    count: int | None
    most: int

    @property
    def limit(self) -> int:
        """The most that are evaluated."""
        return self.most if self.count is None else self.count


@dataclass(frozen=True, eq=False)
class Sampling:
    """Everything that decides what is evaluated.

    Attributes:
        strategy: one of `STRATEGIES`.
        embedding: of the space.
        first: (k, g) networks that are evaluated in any case, before all others.
        groups: what else, one after the other.
        cost: (n, g) -> (n,) what `front` trades accuracy against, infinite for what cannot run.
        seed: of everything random.
    """

    strategy: str
    embedding: Embedding
    first: Genomes
    groups: tuple[SamplingGroup, ...]
    cost: Callable[[Genomes], Floats]
    seed: int


@dataclass(frozen=True, eq=False)
class Samples:
    """Evaluated networks: genomes (n, g) and answers (n,), in order, and why each group has no more."""

    genomes: Genomes
    answers: Floats
    decisions: tuple[StoppingDecision, ...] = field(default=())

    def add(self, genomes: Genomes, answers: Floats) -> "Samples":
        """Return these, and then others."""
        return Samples(
            np.concatenate([self.genomes, genomes]), np.concatenate([self.answers, answers]), self.decisions
        )


def sample(sampling: Sampling, evaluate: Callable[[Genomes], Floats]) -> Samples:
    """Choose, evaluate (n, g) -> (n,), learn, choose again, until there are enough of every group."""
    first = sampling.first[unique_rows(sampling.first)]
    samples = Samples(first, evaluate(first))
    blind = _draws(sampling)
    for position, group in enumerate(sampling.groups):
        drawn = group.draw(group.limit, rng=blind) if sampling.strategy == "random" else None
        requested, earlier, gains, decision = 0, len(samples.genomes), Gains(), None
        while decision is None:
            n = min(BATCH, group.limit - requested)
            rng = _draws(sampling, position, requested)
            if drawn is not None:
                batch = _fresh(drawn[requested : requested + n], samples.genomes)
            else:
                batch = choose(sampling, samples, group, n, rng=rng)
            samples, requested = samples.add(batch, evaluate(batch)), requested + n
            decision, gains = _stopping_decision(sampling, samples, group, earlier, requested, gains)
        samples = Samples(samples.genomes, samples.answers, (*samples.decisions, decision))
    return samples


def _fresh(genomes: Genomes, evaluated: Genomes) -> Genomes:
    """Return those that are not known, each once."""
    distinct = genomes[unique_rows(genomes)] if len(genomes) else genomes
    return distinct[~np.isin(row_keys(distinct), row_keys(evaluated))] if len(distinct) else distinct


# -- which ------------------------------------------------------------------------------------------


def choose(
    sampling: Sampling, samples: Samples, group: SamplingGroup, n: int, *, rng: np.random.Generator
) -> Genomes:
    """Choose up to `n` networks of one group that are not known yet."""
    points, kernel = sampling.embedding(samples.genomes), PRIOR
    if sampling.strategy != "diverse" and len(samples.answers) >= FEWEST_TO_LEARN:
        kernel = learn_kernel(points, rank_normalised(samples.answers), rng=rng)
    near = samples.genomes[:0]
    if sampling.strategy == "front" and len(samples.answers) >= FEWEST_TO_LEARN:
        near = _near_front(sampling, samples, group, kernel, n // 2, rng=rng)
    pool = _fresh(_fresh(group.draw(CONSIDERED, rng=rng), samples.genomes), near) if n else near
    points = sampling.embedding(np.concatenate([samples.genomes, near]))
    order = alc_design(kernel, points, sampling.embedding(pool), n - len(near))
    return np.concatenate([near, pool[order]])


def _near_front(
    sampling: Sampling,
    samples: Samples,
    group: SamplingGroup,
    kernel: Kernel,
    n: int,
    *,
    rng: np.random.Generator,
) -> Genomes:
    """Return up to `n` networks, well spread, of the front that the answers so far predict."""
    points, targets = sampling.embedding(samples.genomes), rank_normalised(samples.answers)

    def predicted(genomes: Genomes) -> tuple[Floats, Floats]:
        mean = posterior_mean(kernel, points, targets, sampling.embedding(genomes))
        cost = sampling.cost(genomes)
        runs = np.isfinite(cost)
        return np.stack([-mean, np.where(runs, cost, 0.0)], axis=1), np.where(runs, 0.0, np.inf)

    space = sampling.embedding.space
    start = group.draw(BATCH, rng=rng)
    searcher = make_searcher("evolution", space, seed=int(rng.integers(2**31)), initial=start)
    worst = [10.0, np.finfo(np.float64).max]
    result = search(
        searcher,
        lambda genomes: predicted(group.project(genomes)),
        budget=FRONT_BUDGET,
        batch=500,
        reference=worst,
    )
    genomes = group.project(result.genomes)
    fresh = np.isin(row_keys(genomes), row_keys(_fresh(genomes, samples.genomes)))
    return _fresh(genomes[fresh][choose_finalists(result.objectives[fresh], n)], samples.genomes)


# -- how many ---------------------------------------------------------------------------------------


def _stopping_decision(
    sampling: Sampling, samples: Samples, group: SamplingGroup, earlier: int, requested: int, gains: Gains
) -> tuple[StoppingDecision | None, Gains]:
    """Return why to stop after `requested` networks of a group, or None to go on, and all expected gains with
    that of the next batch.

    Args:
        earlier: rows of other groups; those of this one come after them.
        gains: that were expected before.
    """
    n = len(samples.genomes) - earlier
    if group.count is not None:
        reached = StoppingDecision(group.name, n, group.limit, "as many as were asked for")
        return (reached if requested >= group.count else None), gains
    if n < FEWEST and requested < group.limit:
        return None, gains
    if n < 2 * FOLDS:
        return StoppingDecision(group.name, n, group.limit, "there are no more"), gains
    curve = sampler_curve(sampling, samples, earlier)
    law = fit_power_law([point.n for point in curve], [1 - point.kendall_tau for point in curve])
    gains = (*gains, law(n) - law(n + BATCH))
    promise = f"the next {BATCH} promise {gains[-1]:.4f} of Kendall's tau"
    if len(gains) >= IN_A_ROW and max(gains[-IN_A_ROW:]) < MIN_GAIN:
        why = f"{promise}, less than {MIN_GAIN}"
    elif requested >= group.limit:
        why = f"the most; {promise}"
    else:
        return None, gains
    return StoppingDecision(group.name, n, group.limit, why, gains[-1], curve), gains


def _draws(sampling: Sampling, *step: int) -> np.random.Generator:
    """Return the random numbers of a batch, or of all that is drawn blindly: no run does both."""
    return open_stream(sampling.seed, Stream.SAMPLES, *step)


def sampler_curve(sampling: Sampling, samples: Samples, earlier: int) -> tuple[CurvePoint, ...]:
    """Cross-validated error of the sampler's own model on the rows after the first `earlier`, from which it
    always learns; the mean of several partitions.
    """
    points, targets = sampling.embedding(samples.genomes), rank_normalised(samples.answers)
    rng = open_stream(sampling.seed, Stream.SAMPLER_CURVE, len(targets))
    kernel = learn_kernel(points, targets, rng=rng)

    def fit(learned: Rows, held: Rows) -> Floats:
        return posterior_mean(kernel, points_at(points, learned), targets[learned], points_at(points, held))

    curves = []
    for _ in range(REPEATS):
        fold = np.concatenate([np.full(earlier, ALWAYS), rng.permutation(len(targets) - earlier) % FOLDS])
        curves.append(learning_curve(fit, targets, fold, SHARES, rng=rng))
    return tuple(
        CurvePoint(
            same[0].n,
            float(np.mean([point.kendall_tau for point in same])),
            float(np.mean([point.rmse for point in same])),
        )
        for same in zip(*curves, strict=True)
    )
