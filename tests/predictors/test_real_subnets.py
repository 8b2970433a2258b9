"""Measured ImageNet accuracy of OFA-MobileNetV3 subnets, from DyNAS-T; skipped where the data are absent."""

from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from predictors.assessment.conformal import coverage
from predictors.predictor import load_predictor
from supernet.space.space import Choice, Genomes, SearchSpace
from tests.published_data import DataFile

KERNELS, EXPANDS, DEPTHS = (3, 5, 7), (3, 4, 6), (2, 3, 4)


def ofa_space() -> SearchSpace:
    """Five stages of up to four blocks; a block beyond its stage's depth is dead."""
    choices = [Choice(f"s{s}.depth", DEPTHS, role="depth", stage=s) for s in range(5)]
    for i in range(20):
        stage, position = divmod(i, 4)
        alive = (
            ((f"s{stage}.depth", tuple(d for d in DEPTHS if d > position)),) if position >= DEPTHS[0] else ()
        )
        choices.append(Choice(f"b{i}.kernel", KERNELS, "architecture", alive, "kernel"))
        choices.append(Choice(f"b{i}.expand", EXPANDS, "pruning", alive, "expand"))
    return SearchSpace("ofa-mbv3", tuple(choices))


def ofa_subnets(path: Path) -> tuple[Genomes, np.ndarray]:
    """(1200, 45) genomes and their top-1 in percent."""
    data = np.load(path)
    genomes = np.empty((len(data["top1"]), 45), np.int16)
    genomes[:, :5] = data["d"] - DEPTHS[0]
    genomes[:, 5::2] = np.searchsorted(KERNELS, data["ks"])  # 0, which marks a dead block, becomes gene 0
    genomes[:, 6::2] = np.searchsorted(EXPANDS, data["e"])
    return genomes, data["top1"]


def test_default_predictor_ranks_unseen_subnets(data_file: DataFile) -> None:
    space, (genomes, top1) = ofa_space(), ofa_subnets(data_file("subnets/ofa_mbv3_w10.npz"))
    np.testing.assert_array_equal(space.canonical(genomes), genomes)
    order = np.random.default_rng(0).permutation(len(top1))
    train, test = order[:200], order[200:]
    prediction = load_predictor()(space, seed=0).fit(genomes[train], top1[train]).predict(genomes[test])
    assert kendalltau(prediction.mean, top1[test]).statistic >= 0.93
    assert coverage(prediction.mean - top1[test], prediction.std) > 0.8
