"""Scores of formats on a trained supernet, and how people name the architecture they are of."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from nas.allocation.sensitivity import SENSITIVITIES, known_candidate, sensitivity
from nas.allocation.sensitivity_file import noise_to_signal
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.run.config import RunConfig, SpaceSection
from nas.run.reporting import QUIET
from nas.run.run import Run, open_run
from nas.search.algorithms.milp import Formats, formats_of
from nas.stages.train import run_train
from supernet.data.images import Images
from supernet.train.loop import TrainConfig


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained for a step, of three formats."""
    space = SpaceSection(formats=("fp32", "int8", "int4"))
    config = RunConfig(train=TrainConfig(epochs=1, random_subnets=0), space=space)
    run = open_run(tmp_path_factory.mktemp("run"), config)
    few = Images(run.task.train.pixels[:64], run.task.train.labels[:64])
    vars(run)["task"] = replace(run.task, train=few, validation=few)  # in place of the cached property
    run_train(run, QUIET)
    return run


@pytest.fixture(scope="module")
def smallest(run: Run) -> Formats:
    return formats_of(run.family.space(), np.array(run.family.extremes()["smallest/fp32"].genes, np.int16))


@pytest.fixture(scope="module")
def scores(run: Run, smallest: Formats) -> dict[str, dict[str, tuple[float, ...]]]:
    return {kind: dict(sensitivity(run, kind, smallest.genome, smallest.columns)) for kind in SENSITIVITIES}


@pytest.mark.parametrize("kind", SENSITIVITIES)
def test_every_format_has_a_score_and_fewer_bits_hurt_more(
    scores: dict[str, dict[str, tuple[float, ...]]], run: Run, smallest: Formats, kind: str
) -> None:
    names = [run.family.space().choices[column].name for column in smallest.columns]
    assert list(scores[kind]) == names
    values = np.array(list(scores[kind].values()))
    assert values.shape == (len(names), 3)
    assert np.isfinite(values).all()
    assert (values[:, 0] == 0).all()
    assert (values >= 0).all()
    assert values[:, 2].sum() > 10 * values[:, 1].sum() > 0


def test_the_ways_of_scoring_are_of_one_mind(scores: dict[str, dict[str, tuple[float, ...]]]) -> None:
    """Noise of the logits and divergence of the probabilities rank the 4-bit layers alike."""
    kl, sqnr = (np.array([values[2] for values in scores[kind].values()]) for kind in ("kl", "sqnr"))
    ranks = [np.argsort(np.argsort(each)) for each in (kl, sqnr)]
    assert np.corrcoef(*ranks)[0, 1] > 0.6


def test_hessian_scores_are_trace_times_squared_error(run: Run, smallest: Formats) -> None:
    """The squared error of 4-bit weights is about (127 / 7)^2 times that of 8-bit ones, or (63 / 7)^2 times
    where those have 7 bits.
    """
    found = sensitivity(run, "hessian", smallest.genome, smallest.columns)
    ratios = [values[2] / values[1] for values in found.values() if values[1] > 0]
    expected = ((63 if run.sums.reduced else 127) / 7) ** 2
    assert 0.5 < np.median(ratios) / expected < 2


def test_noise_over_signal_ignores_what_all_classes_share() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    noise -= noise.mean(dim=1, keepdim=True)
    centred = logits - logits.mean(dim=1, keepdim=True)
    expected = float((noise**2).sum() / (centred**2).sum())
    reference, other = torch.log_softmax(logits, 1), torch.log_softmax(logits + noise + 3.0, 1)
    assert noise_to_signal(reference, other) == pytest.approx(expected)
    assert noise_to_signal(reference, reference) == 0


def test_unknown_sensitivities_are_refused(run: Run, smallest: Formats) -> None:
    with pytest.raises(TrilobitError, match="unknown sensitivity 'luck'; known: kl, sqnr, hessian"):
        sensitivity(run, "luck", smallest.genome, smallest.columns)


def test_architectures_are_named_by_end_genes_or_id(run: Run) -> None:
    space, corners = run.family.space(), run.family.extremes()
    largest = corners["largest/fp32"]
    assert known_candidate(run, "largest") == largest
    assert known_candidate(run, "smallest") == corners["smallest/fp32"]
    assert known_candidate(run, ",".join(map(str, largest.genes))) == largest
    candidate = space.candidate(space.sample(1, rng=np.random.default_rng(0))[0])
    assert len(list(SupernetEvaluator(NetworkBuilder(run)).sample([candidate]))) == 1
    assert known_candidate(run, candidate.id) == candidate


@pytest.mark.parametrize(
    ("named", "message"),
    [("nobody", "no network of that id"), ("0,1", "not a genome"), ("1,two", "genes are integers")],
)
def test_architectures_that_nobody_knows(run: Run, named: str, message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        known_candidate(run, named)
