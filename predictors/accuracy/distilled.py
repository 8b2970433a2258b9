"""A slow predictor imitated by a quick one: what a search of many candidates goes by.

A mixture with trees, or with a prior of another run, takes some tens of microseconds a network. A small
network of two hidden layers, fitted to what it says of networks like those that a search comes across, takes
one or two; how far off that is, is measured on others of them and added to the standard deviation.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from predictors.predictor import Prediction, Predictor
from supernet.space.space import Genomes, SearchSpace

Floats = NDArray[np.float64]
Layers = tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]  # weights (i, o) and biases (o,)

DRAWN, BRED, REFINED = 5_000, 5_000, 5_000  # networks it learns from: at random, of known ones, of the best
LEARNED = DRAWN + BRED + REFINED
MUTATED = 0.05  # chance of a gene of the latter two to be drawn anew
BEST = 0.25  # share of the first two that the last are bred from
HELD_OUT = 0.1  # of them all, to tell the error
HIDDEN = 64
STEPS, BATCH, LEARNING_RATE = 1_500, 256, 2e-2
SPREAD = 0.1  # weight of the logarithm of the standard deviation beside the mean
PENALTY = 1e-4  # of the line: its features may be each other's sums
TINY = 1e-12
CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Codes:
    """Genomes as numbers: 0 of a dead gene, otherwise 1 more than the gene, and its square, standardised."""

    space: SearchSpace
    centre: NDArray[np.float32]
    scale: NDArray[np.float32]

    def __call__(self, genomes: Genomes) -> NDArray[np.float32]:
        """Return genomes (n, g) as codes (n, 2 g); equal networks get equal rows."""
        codes = ((genomes + 1) * self.space.active(genomes)).astype(np.float32)
        return np.asarray((np.hstack([codes, codes * codes]) - self.centre) * self.scale)


@dataclass(frozen=True, eq=False)
class Distilled:
    """An imitation of a fitted predictor; see `predictors.predictor.Predictor`, and `distil`.

    Attributes:
        codes: how it reads genomes.
        line: (f, 2) slopes, and `mean` (2,), of the mean and the logarithm of the standard deviation.
        layers: of a network that gives what a line leaves of both, divided by `scale` (2,).
        low, high: (2,) between which the outputs stay.
        rmse: of the imitated means, on networks it did not learn from.
        share: the same, in imitated standard deviations: the predictor's own idea of its error.
    """

    codes: Codes
    line: NDArray[np.float32]
    mean: Floats
    layers: Layers
    scale: Floats
    low: Floats
    high: Floats
    rmse: float = 0.0
    share: float = 0.0

    def fit(self, genomes: Genomes, targets: Floats) -> "Distilled":
        """Refuse: it learns from a predictor.

        Raises:
            TypeError: always.
        """
        raise TypeError("an imitation is made by `distil(space, predictor, around, rng=rng)`")

    def predict(self, genomes: Genomes) -> Prediction:
        mean, std = np.empty(len(genomes)), np.empty(len(genomes))
        for start in range(0, len(genomes), CHUNK):
            rows = slice(start, start + CHUNK)
            out = np.clip(self._outputs(self.codes(genomes[rows])), self.low, self.high)
            mean[rows], std[rows] = out[:, 0], np.hypot(np.exp(out[:, 1]), self.rmse)
        return Prediction(mean, std)

    def in_words(self) -> str:
        """Return what it costs to go by it."""
        return (
            "candidates are scored by a fast model distilled from the predictor; on networks that it did not "
            f"learn from it differs by {self.share:.0%} of the predictor's own standard deviation"
        )

    def _outputs(self, x: NDArray[np.float32]) -> Floats:
        hidden = x
        for weights, bias in self.layers[:-1]:
            hidden = hidden @ weights
            hidden += bias
            np.maximum(hidden, 0, out=hidden)
        weights, bias = self.layers[-1]
        return self.mean + x @ self.line + self.scale * (hidden @ weights + bias)


def distil(
    space: SearchSpace, predictor: Predictor, around: Genomes, *, rng: np.random.Generator
) -> Distilled:
    """Distil a fitted predictor: fit its predictions on random networks, on offspring of `around` (k, g), and
    on offspring of the best of both.
    """
    drawn = np.concatenate([space.sample(DRAWN, rng=rng), offspring(space, around, BRED, rng=rng)])
    predicted = predictor.predict(drawn)
    best = drawn[np.argsort(predicted.mean)[-int(BEST * len(drawn)) :]]
    refined = offspring(space, best, REFINED, rng=rng)
    more = predictor.predict(refined)
    genomes = np.concatenate([drawn, refined])
    targets = np.column_stack(
        [np.concatenate([predicted.mean, more.mean]), np.log(np.concatenate([predicted.std, more.std]))]
    )
    order = rng.permutation(len(genomes))
    held, learned = np.split(order, [int(HELD_OUT * len(order))])
    student = _imitate(space, genomes[learned], targets[learned], seed=int(rng.integers(2**31)))
    error = student.predict(genomes[held]).mean - targets[held, 0]
    rmse = float(np.sqrt(np.mean(error**2)))
    return replace(student, rmse=rmse, share=rmse / float(np.exp(targets[held, 1]).mean()))


def offspring(space: SearchSpace, parents: Genomes, n: int, *, rng: np.random.Generator) -> Genomes:
    """Return (n, g) mutated crossovers of random pairs of parents (k, g)."""
    mothers, fathers = (parents[rng.integers(len(parents), size=n)] for _ in range(2))
    return space.mutate(space.crossover(mothers, fathers, rng=rng), rng=rng, rate=MUTATED)


def _imitate(space: SearchSpace, genomes: Genomes, targets: Floats, *, seed: int) -> Distilled:
    """Fit the network to targets (n, 2)."""
    plain = Codes(space, *(np.full(2 * len(space.choices), value, np.float32) for value in (0, 1)))
    x = plain(genomes)
    spread = x.std(axis=0)
    codes = replace(plain, centre=x.mean(axis=0), scale=np.where(spread > 0, 1 / np.maximum(spread, 1e-6), 0))
    x, mean = codes(genomes), targets.mean(axis=0)
    line = np.linalg.solve(x.T @ x + len(x) * PENALTY * np.eye(x.shape[1]), x.T @ (targets - mean))
    rest = targets - mean - x @ line
    scale = np.maximum(rest.std(axis=0), TINY)
    layers = _trained(x, (rest / scale).astype(np.float32), seed=seed)
    return Distilled(
        codes, line.astype(np.float32), mean, layers, scale, targets.min(axis=0), targets.max(axis=0)
    )


def _trained(x: NDArray[np.float32], y: NDArray[np.float32], *, seed: int) -> Layers:
    generator = torch.Generator().manual_seed(seed)
    sizes = (x.shape[1], HIDDEN, HIDDEN, y.shape[1])
    weights = [
        torch.randn(i, o, generator=generator).mul_((2 / i) ** 0.5).requires_grad_()
        for i, o in itertools.pairwise(sizes)
    ]
    biases = [torch.zeros(o, requires_grad=True) for o in sizes[1:]]
    optimizer = torch.optim.AdamW([*weights, *biases], lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    matter = torch.tensor([1.0, SPREAD])
    for rows, targets in _batches(torch.from_numpy(x), torch.from_numpy(y), generator):
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            rows = F.relu(torch.addmm(b, rows, w))
        loss = (matter * (torch.addmm(biases[-1], rows, weights[-1]) - targets) ** 2).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return tuple((w.detach().numpy(), b.detach().numpy()) for w, b in zip(weights, biases, strict=True))


def _batches(x: Tensor, y: Tensor, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        yield x[rows], y[rows]
