"""The search finds the front of a network whose policies can all be listed, in a tenth of the evaluations."""

from collections.abc import Callable

import numpy as np
import pytest

from nas.search.deduplication import enumerate_space
from nas.search.pareto import hypervolume
from nas.search.points import Points
from nas.tune.policies.first_policies import first_policies, varied_policies
from nas.tune.policies.space import all_int8, policy_of, single_genomes, uniform_genomes
from nas.tune.search.allocate import allocated
from nas.tune.search.proposals import Beliefs, propose
from predictors.accuracy.policies import PolicyPredictor
from supernet.space.space import Choice, Genomes, SearchSpace

UNITS, FORMATS = 6, ("fp32", "int8", "int4")
SHARE, REACHED = 0.1, 0.98
SPACE = SearchSpace(
    "policies",
    tuple(Choice(f"u{i}", FORMATS, kind="precision", role="format", block=i // 2) for i in range(UNITS)),
)
TENSORS = np.array(  # each unit has the tensors before and after it in codes
    [
        [gene > 0 and tensor in (unit, unit + 1) for tensor in range(UNITS + 1)]
        for unit in range(UNITS)
        for gene in range(3)
    ]
)


def in_codes(genomes: Genomes) -> np.ndarray:
    return SPACE.one_hot(genomes) @ TENSORS > 0


class Network:
    """A chain whose roundings add up, with errors that strengthen each other, and conversions at borders."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.weights = np.exp(rng.normal(-7, 1.5, (UNITS, 3))) * [0, 1, 8]
        self.tensors = np.exp(rng.normal(-7.5, 1, UNITS + 1))
        self.coherence = rng.normal(0, 0.1, (UNITS, UNITS))
        self.unit_s = np.exp(rng.normal(-9, 0.6, UNITS))
        self.gain = rng.uniform(0.2, 0.6, UNITS)
        self.border_s = 0.08 * np.median(self.unit_s)
        self.bytes = np.exp(rng.normal(9, 1, UNITS))

    def divergence(self, genomes: Genomes) -> np.ndarray:
        quantized = (genomes > 0).astype(float)
        parts = np.hstack(
            [quantized[:, :1], np.maximum(quantized[:, 1:], quantized[:, :-1]), quantized[:, -1:]]
        )
        added = self.weights[np.arange(UNITS), genomes].sum(axis=1) + parts @ self.tensors
        together = np.einsum("ni,ij,nj->n", quantized, self.coherence, quantized)
        return added * np.exp(together)

    def latency_s(self, genomes: Genomes) -> np.ndarray:
        quantized = genomes > 0
        borders = np.diff(np.pad(quantized, ((0, 0), (1, 1))).astype(int), axis=1) != 0
        return (
            np.where(quantized, self.unit_s * self.gain, self.unit_s).sum(axis=1)
            + borders.sum(axis=1) * self.border_s
        )

    def size_bytes(self, genomes: Genomes) -> np.ndarray:
        return (self.bytes * np.array([4.0, 1.0, 0.5])[genomes]).sum(axis=1)

    @property
    def costs(self) -> dict[str, Callable[[Genomes], np.ndarray]]:
        return {"latency": self.latency_s, "size": self.size_bytes}

    def objectives(self, genomes: Genomes) -> np.ndarray:
        columns = (np.sqrt(self.divergence(genomes)), self.latency_s(genomes), self.size_bytes(genomes))
        return np.stack(columns, axis=1)


def share_of_true_front(seed: int) -> float:
    """What hypervolume a tenth of the evaluations reaches, of all there is."""
    network, rng = Network(seed), np.random.default_rng(seed)
    every = network.objectives(enumerate_space(SPACE))
    reference = every.max(axis=0) * 1.1
    most = int(SHARE * len(every))
    evaluated = first_policies(SPACE, most // 2, rng=rng)
    while len(evaluated) < most:
        logs = np.log(network.divergence(evaluated) + 1e-7)
        quality = PolicyPredictor(SPACE, tensors=in_codes).fit(evaluated, logs)
        beliefs = Beliefs(quality, network.costs, 0.03, np.full(3, np.inf))
        measured = Points(evaluated, network.objectives(evaluated), np.zeros(len(evaluated)))
        count = min(12, most - len(evaluated))
        start = allocated(SPACE, beliefs)
        new = propose(SPACE, beliefs, measured, reference, count, seed=len(evaluated), start=start)
        evaluated = np.concatenate([evaluated, new])
    assert len(np.unique(evaluated, axis=0)) == len(evaluated) <= most
    return hypervolume(network.objectives(evaluated), reference) / hypervolume(every, reference)


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 5), marks=pytest.mark.slow)])
def test_a_tenth_of_the_evaluations_finds_the_front(seeds: range) -> None:
    shares = [share_of_true_front(seed) for seed in seeds]
    assert min(shares) >= REACHED, shares


def test_limits_hold_for_what_is_proposed() -> None:
    network = Network(0)
    evaluated = first_policies(SPACE, 40, rng=np.random.default_rng(0))
    quality = PolicyPredictor(SPACE, tensors=in_codes).fit(
        evaluated, np.log(network.divergence(evaluated) + 1e-7)
    )
    objectives = network.objectives(evaluated)
    bounds = np.array([np.inf, np.median(objectives[:, 1]), np.inf])
    beliefs = Beliefs(quality, network.costs, 0.03, bounds)
    violation = np.maximum(objectives / bounds - 1, 0).sum(axis=1)
    measured = Points(evaluated, objectives, violation)
    new = propose(SPACE, beliefs, measured, objectives.max(axis=0) * 1.1, 8, seed=0, start=evaluated[:0])
    assert len(new)
    assert (network.latency_s(new) <= bounds[1]).all()


def test_first_policies_are_in_the_space_and_different() -> None:
    rows = first_policies(SPACE, 50, rng=np.random.default_rng(3))
    assert (rows >= 0).all()
    assert (rows < SPACE.cardinalities).all()
    assert len(np.unique(rows, axis=0)) == len(rows) == 50
    assert (rows[:3] == uniform_genomes(SPACE)).all()
    drawn = varied_policies(SPACE, 200, rng=np.random.default_rng(4))
    assert 0 < (drawn > 0).mean() < 1
    assert (drawn == 2).any()


def test_a_policy_names_what_is_not_fp32() -> None:
    assert policy_of(SPACE, single_genomes(SPACE)[1]) == {"u0": "int4"}
    assert policy_of(SPACE, all_int8(SPACE)) == {f"u{i}": "int8" for i in range(UNITS)}
