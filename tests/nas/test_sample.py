"""Which candidates the accuracy predictor learns from."""

import numpy as np

from nas.stages.sample import in_fp32, vary_share
from nas.validation import random_networks
from supernet.family import load_family

DIGITS = load_family("digits-mbconv", in_channels=1, classes=10)
APQ = load_family("apq-proxyless", in_channels=3, classes=10)


def test_policies_differ_in_their_share_of_fp32_layers() -> None:
    space = DIGITS.space()
    genomes = space.sample(300, rng=np.random.default_rng(0))
    varied = vary_share(space, genomes, rng=np.random.default_rng(1))
    assert (space.canonical(varied) == varied).all()
    precision = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    others = [column for column in range(len(space.choices)) if column not in precision]
    assert (varied[:, others] == genomes[:, others]).all()

    def deviation(rows: np.ndarray) -> float:
        living = space.active(rows)[:, precision].sum(axis=1)
        return float(((rows[:, precision] > 0).sum(axis=1) / living).std())

    assert deviation(varied) > 1.5 * deviation(genomes)


def test_where_one_choice_switches_to_fp32_quantized_candidates_are_quantized() -> None:
    space = APQ.space()
    genomes = space.sample(300, rng=np.random.default_rng(0))
    varied = vary_share(space, genomes, rng=np.random.default_rng(1))
    for genome in varied[:20]:
        policy = APQ.policy(space.candidate(genome))
        assert "fp32" not in {precision.weight for precision in policy.values()}
    precision = [c for c, choice in enumerate(space.choices) if choice.kind == "precision"][1:]
    first = (varied[:, precision] == 0).mean(axis=1)
    assert first.min() < 0.5
    assert first.max() > 0.95
    assert (np.unique(varied[:, precision]) == [0, 1, 2]).all()
    for genome in in_fp32(space, genomes)[:20]:
        assert {str(one) for one in APQ.policy(space.candidate(genome)).values()} == {"fp32"}


def test_random_networks_are_uniform_in_every_format_of_the_corners() -> None:
    found = random_networks(APQ, 2, np.random.default_rng(0))
    assert list(found) == ["fp32", "int8", "int6", "int4", "mixed"]
    for fmt in ("fp32", "int8", "int6", "int4"):
        for work in found[fmt]:
            inner = [
                layer for name, layer in zip(work.names, work.layers, strict=True) if name.endswith(".expand")
            ]
            assert {layer.activation_format for layer in inner} == {fmt}
            assert {layer.weight_format for layer in inner} == {fmt}
    assert list(random_networks(DIGITS, 1, np.random.default_rng(0))) == ["fp32", "int8", "mixed"]
