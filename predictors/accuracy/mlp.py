"""An ensemble of small networks that learns accuracy from many fp32 and few quantized candidates.

The transfer is that of APQ (Wang et al. 2020, arXiv:2006.08509): fit the architecture on fp32 candidates,
then add one linear map of the number formats to the first hidden layer, starting at zero, and go on with all.
"""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from predictors import features
from predictors.assessment.conformal import calibrate
from predictors.assessment.out_of_fold import FOLDS, folds_of
from predictors.predictor import Prediction, check_rows, not_fitted
from predictors.table import CostTable
from supernet.space.space import Genomes, SearchSpace

MEMBERS = 10  # each is judged on a fold of the rows, a fifth, which it never sees
HIDDEN = 64
OUTPUT_GAIN = 0.3  # members start close to zero, so that they agree where nothing was learned about them
STEPS = 400  # of full-batch AdamW, in each of the two stages
LEARNING_RATE = 1e-2
# Decoupled weight decay, times the learning rate (Loshchilov & Hutter 2019, arXiv:1711.05101): little where
# targets are exact, much where they are noisy; rows left out decide.
DECAYS = (0.3, 3.0)
CHUNK = 2048  # rows predicted at once: the activations of all members stay inside the cache
FLOOR = 1e-3  # smallest std, in standard deviations of the targets


class Weights(NamedTuple):
    """All members' weights: e members, a architecture features, p policy features, h hidden units."""

    inputs: Tensor  # (e, a, h)
    formats: Tensor  # (e, p, h): W_q, zero until quantized candidates are seen
    hidden: Tensor  # (e, h, h)
    output: Tensor  # (e, h, 1)
    input_bias: Tensor  # (e, 1, h)
    hidden_bias: Tensor  # (e, 1, h)
    output_bias: Tensor  # (e, 1, 1)


class Rows(NamedTuple):
    """What the networks read of n candidates."""

    architecture: Tensor  # (n, a) centred; the costs that every network has among them
    policy: Tensor  # (n, p) all-zero in fp32; the costs that a network may be without among them


@dataclass(frozen=True, eq=False)
class Reader:
    """Genomes as `Rows`.

    Attributes:
        space: whose genomes it reads.
        architecture, policy: features that genes decide.
        costs: the cost features of the training rows.
        centre: (a,) mean architecture features of the training rows.
    """

    space: SearchSpace
    architecture: features.Encoding
    policy: features.Encoding
    costs: features.LogCosts
    centre: features.Features

    def __call__(self, genomes: Genomes) -> Rows:
        """Return n rows of genomes (n, g)."""
        free, without = self.costs(self.space, genomes), self.costs.without
        architecture = np.hstack([self.architecture(genomes), free[:, ~without]]) - self.centre
        policy = np.hstack([self.policy(genomes), free[:, without]])
        return Rows(torch.from_numpy(architecture), torch.from_numpy(policy))


def reader(space: SearchSpace, table: CostTable | None, genomes: Genomes) -> Reader:
    """Return a reader whose features are centred on these genomes (n, g)."""
    parts = (features.architecture(space), features.policy(space, table))
    costs = features.log_costs(table, space, genomes)
    plain = Reader(space, *parts, costs, np.zeros(1, np.float32))
    return replace(plain, centre=plain(genomes).architecture.numpy().mean(axis=0))


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `MlpPredictor.fit` learns.

    Attributes:
        read: from genomes to what the networks read.
        weights: of the members.
        mean, scale: of the targets.
        out_of_fold: (n,) standardised, what the members that have not seen a row say of it.
        typical: disagreement of members on rows they have not seen, standardised.
        std_scale: factor from disagreement to standard deviation of the error.
    """

    read: Reader
    weights: Weights
    mean: float
    scale: float
    out_of_fold: NDArray[np.float64]
    typical: float
    std_scale: float


@dataclass(frozen=True, eq=False)
class MlpPredictor:
    """Mean and calibrated disagreement of the members; see `predictors.predictor.Predictor`.

    Without quantized candidates it predicts the same at every policy; without fp32 ones none is transferred.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int
    costs: CostTable | None = None
    fitted: Fitted | None = None

    def fit(self, genomes: Genomes, targets: NDArray[np.float64]) -> Self:
        check_rows(self.space, genomes, targets)
        read = reader(self.space, self.costs, genomes)
        rows = read(genomes)
        mean, scale = float(targets.mean()), float(targets.std()) or 1.0
        standard = ((targets - mean) / scale).astype(np.float32)
        visible = _seen(self.space, genomes, seed=self.seed)
        data = (rows, torch.from_numpy(standard), torch.from_numpy(visible))
        tried = [transfer(*data, decay=decay, seed=self.seed) for decay in DECAYS]
        unseen = [_unseen(_outputs(weights, rows), ~visible) for weights in tried]
        best = int(np.argmin([((outputs.mean(axis=1) - standard) ** 2).mean() for outputs in unseen]))
        typical, std_scale = _judge(unseen[best], standard)
        out_of_fold = unseen[best].mean(axis=1, dtype=np.float64)
        return replace(self, fitted=Fitted(read, tried[best], mean, scale, out_of_fold, typical, std_scale))

    @property
    def out_of_fold(self) -> NDArray[np.float64]:
        """(n,) what it says of each row it was fitted on without having learned from its architecture.

        It is a little worse than `predict`: fewer members take part.
        """
        fitted = self._known()
        return fitted.mean + fitted.scale * fitted.out_of_fold

    def _known(self) -> Fitted:
        if self.fitted is None:
            raise not_fitted(self)
        return self.fitted

    def predict(self, genomes: Genomes) -> Prediction:
        fitted, mean, std = self._known(), np.empty(len(genomes)), np.empty(len(genomes))
        for start in range(0, len(genomes), CHUNK):
            chunk = slice(start, start + CHUNK)
            outputs = _outputs(fitted.weights, fitted.read(genomes[chunk]))
            mean[chunk], std[chunk] = outputs.mean(axis=0), _spread(outputs, fitted.typical)
        std = np.maximum(fitted.std_scale * std, FLOOR)
        return Prediction(fitted.mean + fitted.scale * mean, fitted.scale * std)


# -- networks ------------------------------------------------------------------------------------------------


def initial_weights(a: int, p: int, *, seed: int) -> Weights:
    """Draw He-normal weights (He et al. 2015, arXiv:1502.01852); `formats` and the biases are zero."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(inputs: int, outputs: int) -> Tensor:
        return torch.randn(MEMBERS, inputs, outputs, generator=generator) * math.sqrt(2 / max(inputs, 1))

    def zeros(inputs: int, outputs: int) -> Tensor:
        return torch.zeros(MEMBERS, inputs, outputs)

    return Weights(
        inputs=drawn(a, HIDDEN),
        formats=zeros(p, HIDDEN),
        hidden=drawn(HIDDEN, HIDDEN),
        output=drawn(HIDDEN, 1) * OUTPUT_GAIN,
        input_bias=zeros(1, HIDDEN),
        hidden_bias=zeros(1, HIDDEN),
        output_bias=zeros(1, 1),
    )


def forward(weights: Weights, rows: Rows) -> Tensor:
    """Return (e, n) each member's standardised prediction for each row."""
    x: Tensor = weights.input_bias + rows.architecture @ weights.inputs + rows.policy @ weights.formats
    x = torch.baddbmm(weights.hidden_bias, F.silu(x), weights.hidden)
    return torch.baddbmm(weights.output_bias, F.silu(x), weights.output).squeeze(2)


def transfer(rows: Rows, targets: Tensor, visible: Tensor, *, decay: float, seed: int) -> Weights:
    """Return weights fitted to the fp32 rows, if any, and then to all rows, if some are quantized.

    Args:
        rows: n candidates.
        targets: (n,) standardised.
        visible: (e, n) which rows each member may learn from.
        decay: of the weights.
        seed: of the initial weights.
    """
    weights = initial_weights(rows.architecture.shape[1], rows.policy.shape[1], seed=seed)
    plain = ~rows.policy.any(dim=1)
    if plain.any():
        in_fp32 = Rows(*(part[plain] for part in rows))
        weights = train(weights, in_fp32, targets[plain], visible[:, plain], decay)
    return weights if plain.all() else train(weights, rows, targets, visible, decay)


def train(weights: Weights, rows: Rows, targets: Tensor, visible: Tensor, decay: float) -> Weights:
    """Minimise each member's squared error on the rows it may see; arguments as for `transfer`."""
    weights = Weights(*(weight.clone().requires_grad_() for weight in weights))
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    share = visible / visible.sum(dim=1, keepdim=True).clamp_min(1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (share * (forward(weights, rows) - targets) ** 2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return Weights(*(weight.detach() for weight in weights))


def _outputs(weights: Weights, rows: Rows) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.asarray(forward(weights, rows).numpy())


# -- uncertainty ---------------------------------------------------------------------------------------------


def _seen(space: SearchSpace, genomes: Genomes, *, seed: int) -> NDArray[np.bool_]:
    """Return (e, n) which rows each member learns from: all but one fold of its own partition of the
    architectures.

    Every `FOLDS` members share a partition. A row is unseen by one member of each; as their training rows
    differ, they disagree about it as all members do about a new one.
    """
    rng = np.random.default_rng(seed)
    folds = np.stack([folds_of(space, genomes, rng=rng) for _ in range(MEMBERS // FOLDS)])[:, None]
    return np.asarray(folds != np.arange(FOLDS)[:, None]).reshape(MEMBERS, len(genomes))


def _unseen(outputs: NDArray[np.float32], held: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return (n, e / FOLDS) what members, of outputs (e, n), say of the rows that are held back from them (e,
    n).
    """
    return outputs.T[held.T].reshape(outputs.shape[1], MEMBERS // FOLDS)


def _spread(outputs: NDArray[np.float32], typical: float) -> NDArray[np.float64]:
    """Return the disagreement (n,) of members (e, n), half of it the typical one: few members give a noisy
    estimate.
    """
    return np.asarray(np.hypot(outputs.std(axis=0), typical) / math.sqrt(2), np.float64)


def _judge(unseen: NDArray[np.float32], targets: NDArray[np.float32]) -> tuple[float, float]:
    """Return `typical` and `std_scale` of `Fitted`, from what the members that judge a row say of it (n, e /
    FOLDS).

    Slightly wide: the few members that judge a row err more than all of them together do.
    """
    typical = math.sqrt(unseen.var(axis=1, ddof=1).mean()) + FLOOR
    return typical, calibrate(unseen.mean(axis=1) - targets, np.full(len(targets), typical))
