"""Another run's accuracies as a prior: found, mapped and refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.run.config import DeviceSection, FitSection, RunConfig, SpaceSection
from nas.run.config_file import render_config
from nas.run.run import Run
from nas.sampling.sampling import Samples
from nas.stages.fit import prior_source
from nas.stages.sample import write_samples


def made(folder: Path, profile_file: Path, space: str = "digits-mbconv") -> Run:
    config = RunConfig(device=DeviceSection(name=f"recorded:{profile_file}"), space=SpaceSection(name=space))
    folder.mkdir()
    (folder / "run.toml").write_text(render_config(config))
    return Run(folder, config)


def starting_from(run: Run, prior: Path) -> Run:
    return replace(run, config=replace(run.config, fit=FitSection(prior=str(prior))))


def test_a_run_of_the_same_build_is_mapped_and_its_samples_count(tmp_path: Path, profile_file: Path) -> None:
    prior = made(tmp_path / "prior", profile_file)
    run = starting_from(made(tmp_path / "run", profile_file, "cifar-mbconv"), prior.folder)
    with pytest.raises(TrilobitError, match=r"prior.*no samples of this configuration; run `nas sample`"):
        prior_source(run)
    before = run.fingerprint("fit")
    genomes = prior.family.space().sample(5, rng=np.random.default_rng(0))
    write_samples(prior, Samples(genomes, np.zeros(5)))
    assert run.fingerprint("fit") != before
    source, mapped = prior_source(run)
    assert source.folder == prior.folder
    space = run.family.space()
    found = mapped(space.sample(100, rng=np.random.default_rng(1)))
    np.testing.assert_array_equal(found, prior.family.space().canonical(found))
    assert len(np.unique(found, axis=0)) > 50


def test_what_cannot_be_a_prior_is_refused(tmp_path: Path, profile_file: Path) -> None:
    run = made(tmp_path / "run", profile_file)
    with pytest.raises(TrilobitError, match="a run cannot be its own prior"):
        prior_source(starting_from(run, run.folder))
    with pytest.raises(TrilobitError, match="not a run folder"):
        prior_source(starting_from(run, tmp_path / "nowhere"))
