"""Which candidates the accuracy predictor learns from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import save_profile
from nas.run.config import DeviceSection, RunConfig, SampleSection, SpaceSection
from nas.run.documents import SamplesFile, StoppingDecision
from nas.run.run import Run
from nas.sampling.sampling import Samples
from nas.stages.sample import (
    in_words,
    most_samples,
    plan,
    sampled,
    vary_share,
    write_samples,
)
from nas.stages.validation import random_networks
from predictors.assessment.learning_curve import CurvePoint
from supernet.families.family import load_family
from supernet.space.space import in_fp32

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


# -- what a run samples ----------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, profile_file: Path) -> Run:
    """Nothing but a configuration."""
    return Run(tmp_path, RunConfig(device=DeviceSection(name=f"recorded:{profile_file}")))


def configured(run: Run, **values: Any) -> Run:
    return replace(run, config=replace(run.config, sample=SampleSection(**values)))


def test_the_most_is_told_before_anything_is_evaluated(run: Run) -> None:
    corners = len(run.family.extremes())
    assert most_samples(run) == corners + 200 + 140
    assert most_samples(configured(run, fp32=7)) == corners + 7 + 140
    assert most_samples(configured(run, fp32=7, quantized=0)) == corners + 7


def test_without_formats_to_choose_from_nothing_is_quantized(run: Run) -> None:
    plain = replace(run, config=replace(run.config, space=SpaceSection(formats=("fp32",))))
    assert [kind.name for kind in plan(plain).groups] == ["fp32"]


def test_front_trades_against_latency_once_there_is_a_profile(
    run: Run, device_profile: DeviceProfile
) -> None:
    genomes = DIGITS.space().sample(5, rng=np.random.default_rng(0))
    front = configured(run, strategy="front")
    assert (plan(front).cost(genomes) > 1000).all()  # multiply-adds
    run.profile_path.parent.mkdir()
    save_profile(device_profile, run.profile_path)
    run.mark_done("profile", 1.0)
    assert (plan(front).cost(genomes) < 1).all()  # seconds


def test_samples_are_found_again_and_refused_once_the_configuration_changed(run: Run) -> None:
    genomes = DIGITS.space().sample(5, rng=np.random.default_rng(0))
    with pytest.raises(
        TrilobitError, match=r"samples\.json: no samples of this configuration; run `nas sample`"
    ):
        sampled(run)
    enough = StoppingDecision(
        "fp32", 5, 200, "the most", 0.01, (CurvePoint(4, 0.5, 0.1), CurvePoint(5, 0.6, 0.1))
    )
    write_samples(run, Samples(genomes, np.zeros(5), (enough,)))
    np.testing.assert_array_equal(sampled(run), genomes)
    assert read_document(run.samples_path, SamplesFile).kinds == (enough,)
    assert in_words(enough).startswith("fp32: 5 networks of at most 200; the most (Kendall's tau")
    with pytest.raises(TrilobitError, match="run `nas sample`"):
        sampled(configured(run, strategy="random"))
    write_json(run.samples_path, {"schema": "samples/9"})
    with pytest.raises(TrilobitError, match="samples/1"):
        sampled(run)
