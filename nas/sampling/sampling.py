"""Which networks the accuracy predictor learns from: how the next ones are chosen, and when there are enough.

Everything is decided by a seed and by answers: asked again with the same answers, it goes the same way. So a
stopped run continues by replaying what it has stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hw_profiles.streams import Stream, open_stream
from nas.run.documents import Enough
from nas.run.registry import DEFAULT_STRATEGY as DEFAULT_STRATEGY
from nas.run.registry import STRATEGIES as STRATEGIES
from nas.search.loop import choose_finalists, search
from nas.search.searcher import make_searcher
from predictors.assessment.learning_curve import ALWAYS, CurvePoint, Rows, fit_power_law, learning_curve
from predictors.design.active import most_informative
from predictors.design.surrogate import (
    PRIOR,
    Embedding,
    Kernel,
    evened,
    learn_kernel,
    points_at,
    posterior_mean,
)
from supernet.space.space import Genomes, row_keys, unique_rows

Floats = NDArray[np.float64]
Draw = Callable[..., Genomes]  # (n, rng=) -> n random networks of one kind

BATCH = 20
CONSIDERED = 1_000  # random networks that a batch is chosen from
FEWEST_TO_LEARN = 20  # answers before the sampler's own model is fitted to them

FEWEST = 80  # of a kind, before its learning curve is believed
MIN_GAIN = 0.003  # of Kendall's tau, by the next batch
IN_A_ROW = 2  # batches that promise less: a curve of so few rows is noisy
SHARES = (0.25, 0.4, 0.6, 0.8, 1.0)  # points of the curve
FOLDS, REPEATS = 5, 4

FRONT_BUDGET = 4_000  # predicted networks, to find the front with


@dataclass(frozen=True)
class Kind:
    """One kind of network to evaluate, and how many.

    Attributes:
        name: for people.
        draw: (n, rng=) gives n random ones (n, g).
        of_kind: makes any genomes (n, g) ones of this kind.
        count: exactly so many; None stops where the learning curve promises too little...
        most: ...and at so many at the latest.
    """

    name: str
    draw: Draw
    of_kind: Callable[[Genomes], Genomes]
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
        kinds: what else, one after the other.
        cost: (n, g) -> (n,) what `front` trades accuracy against, infinite for what cannot run.
        seed: of everything random.
    """

    strategy: str
    embedding: Embedding
    first: Genomes
    kinds: tuple[Kind, ...]
    cost: Callable[[Genomes], Floats]
    seed: int


@dataclass(frozen=True, eq=False)
class Samples:
    """Evaluated networks: genomes (n, g) and answers (n,), in order, and why there are no more."""

    genomes: Genomes
    answers: Floats
    enough: tuple[Enough, ...] = field(default=())

    def add(self, genomes: Genomes, answers: Floats) -> "Samples":
        """These, and then others."""
        return Samples(
            np.concatenate([self.genomes, genomes]), np.concatenate([self.answers, answers]), self.enough
        )


def sample(sampling: Sampling, evaluate: Callable[[Genomes], Floats]) -> Samples:
    """Choose, evaluate (n, g) -> (n,), learn, choose again, until there are enough of every kind."""
    first = sampling.first[unique_rows(sampling.first)]
    samples = Samples(first, evaluate(first))
    blind = _draws(sampling)
    for position, kind in enumerate(sampling.kinds):
        drawn = kind.draw(kind.limit, rng=blind) if sampling.strategy == "random" else None
        asked, before, gains, enough = 0, len(samples.genomes), list[float](), None
        while enough is None:
            wanted = min(BATCH, kind.limit - asked)
            rng = _draws(sampling, position, asked)
            if drawn is not None:
                batch = _fresh(drawn[asked : asked + wanted], samples.genomes)
            else:
                batch = choose(sampling, samples, kind, wanted, rng=rng)
            samples, asked = samples.add(batch, evaluate(batch)), asked + wanted
            enough = _enough(sampling, samples, kind, before, gains, asked)
        samples = Samples(samples.genomes, samples.answers, (*samples.enough, enough))
    return samples


def _fresh(genomes: Genomes, known: Genomes) -> Genomes:
    """Those that are not known, each once."""
    distinct = genomes[unique_rows(genomes)] if len(genomes) else genomes
    return distinct[~np.isin(row_keys(distinct), row_keys(known))] if len(distinct) else distinct


# -- which ------------------------------------------------------------------------------------------


def choose(sampling: Sampling, samples: Samples, kind: Kind, n: int, *, rng: np.random.Generator) -> Genomes:
    """Up to `n` networks of one kind that are not known yet."""
    known, kernel = sampling.embedding(samples.genomes), PRIOR
    if sampling.strategy != "diverse" and len(samples.answers) >= FEWEST_TO_LEARN:
        kernel = learn_kernel(known, evened(samples.answers), rng=rng)
    near = samples.genomes[:0]
    if sampling.strategy == "front" and len(samples.answers) >= FEWEST_TO_LEARN:
        near = _near_front(sampling, samples, kind, kernel, n // 2, rng=rng)
    pool = _fresh(_fresh(kind.draw(CONSIDERED, rng=rng), samples.genomes), near) if n else near
    known = sampling.embedding(np.concatenate([samples.genomes, near]))
    order = most_informative(kernel, known, sampling.embedding(pool), n - len(near))
    return np.concatenate([near, pool[order]])


def _near_front(
    sampling: Sampling, samples: Samples, kind: Kind, kernel: Kernel, n: int, *, rng: np.random.Generator
) -> Genomes:
    """Up to `n` networks, well spread, of the front that the answers so far predict."""
    known, targets = sampling.embedding(samples.genomes), evened(samples.answers)

    def predicted(genomes: Genomes) -> tuple[Floats, Floats]:
        mean = posterior_mean(kernel, known, targets, sampling.embedding(genomes))
        cost = sampling.cost(genomes)
        runs = np.isfinite(cost)
        return np.stack([-mean, np.where(runs, cost, 0.0)], axis=1), np.where(runs, 0.0, np.inf)

    space = sampling.embedding.space
    start = kind.draw(BATCH, rng=rng)
    searcher = make_searcher("evolution", space, seed=int(rng.integers(2**31)), initial=start)
    worst = [10.0, np.finfo(np.float64).max]
    found = search(
        searcher,
        lambda genomes: predicted(kind.of_kind(genomes)),
        budget=FRONT_BUDGET,
        batch=500,
        reference=worst,
    )
    genomes = kind.of_kind(found.genomes)
    fresh = np.isin(row_keys(genomes), row_keys(_fresh(genomes, samples.genomes)))
    return _fresh(genomes[fresh][choose_finalists(found.objectives[fresh], n)], samples.genomes)


# -- how many ---------------------------------------------------------------------------------------


def _enough(
    sampling: Sampling, samples: Samples, kind: Kind, before: int, gains: list[float], asked: int
) -> Enough | None:
    """Why to stop after `asked` of a kind, whose rows come after `before` others; None to go on. What the
    next batch promises is added to `gains`.
    """
    n = len(samples.genomes) - before
    if kind.count is not None:
        done = Enough(kind.name, n, kind.limit, "as many as were asked for")
        return done if asked >= kind.count else None
    if n < FEWEST and asked < kind.limit:
        return None
    if n < 2 * FOLDS:
        return Enough(kind.name, n, kind.limit, "there are no more")
    curve = sampler_curve(sampling, samples, before)
    law = fit_power_law([point.n for point in curve], [1 - point.kendall_tau for point in curve])
    gains.append(law(n) - law(n + BATCH))
    promise = f"the next {BATCH} promise {gains[-1]:.4f} of Kendall's tau"
    if len(gains) >= IN_A_ROW and max(gains[-IN_A_ROW:]) < MIN_GAIN:
        return Enough(kind.name, n, kind.limit, f"{promise}, less than {MIN_GAIN}", gains[-1], curve)
    if asked >= kind.limit:
        return Enough(kind.name, n, kind.limit, f"the most; {promise}", gains[-1], curve)
    return None


def _draws(sampling: Sampling, *step: int) -> np.random.Generator:
    """Return the random numbers of a batch, or of all that is drawn blindly: no run does both."""
    return open_stream(sampling.seed, Stream.SAMPLES, *step)


def sampler_curve(sampling: Sampling, samples: Samples, before: int) -> tuple[CurvePoint, ...]:
    """Cross-validated error of the sampler's own model on the rows after the first `before`, from which it
    always learns; the mean of several partitions.
    """
    points, targets = sampling.embedding(samples.genomes), evened(samples.answers)
    rng = open_stream(sampling.seed, Stream.SAMPLER_CURVE, len(targets))
    kernel = learn_kernel(points, targets, rng=rng)

    def fit(learned: Rows, asked: Rows) -> Floats:
        return posterior_mean(kernel, points_at(points, learned), targets[learned], points_at(points, asked))

    curves = []
    for _ in range(REPEATS):
        fold = np.concatenate([np.full(before, ALWAYS), rng.permutation(len(targets) - before) % FOLDS])
        curves.append(learning_curve(fit, targets, fold, SHARES, rng=rng))
    return tuple(
        CurvePoint(
            same[0].n,
            float(np.mean([point.kendall_tau for point in same])),
            float(np.mean([point.rmse for point in same])),
        )
        for same in zip(*curves, strict=True)
    )
