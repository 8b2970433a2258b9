"""A run's quantized phase: trained after fp32, used by every evaluation, part of what the run depends on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from nas.evaluation.builder import NetworkBuilder
from nas.run.config import QuantizedSection, RunConfig, SpaceSection
from nas.run.defaults import with_defaults
from nas.run.reporting import QUIET
from nas.run.run import Run, open_run
from nas.stages.train import run_train
from supernet.data.images import Images
from supernet.families.family import SIZES
from supernet.tasks.evaluate import build_network, simulated_metric
from supernet.train.loop import TrainConfig, load_supernet

FORMATS = ("fp32", "int8", "int4")
ERROR = 0.026  # standard error of a share of 359 images, at most


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on a few images, with a quantized phase of a few steps."""
    config = RunConfig(
        train=TrainConfig(epochs=1, random_subnets=0),
        space=SpaceSection(formats=FORMATS),
        quantized=QuantizedSection(epochs=0.25, batch_size=32),
    )
    run = open_run(tmp_path_factory.mktemp("run"), config)
    train, validation = run.task.train, run.task.validation
    few = replace(
        run.task,
        train=Images(train.pixels[:256], train.labels[:256]),
        validation=Images(validation.pixels[:100], validation.labels[:100]),
    )
    vars(run)["task"] = few  # in place of the cached property
    run_train(run, QUIET)
    return run


@pytest.mark.slow
def test_the_phase_leaves_a_checkpoint_of_its_own(run: Run) -> None:
    assert run.checkpoint_path.exists()
    assert run.quantized_path.exists()


def test_evaluations_use_the_learned_scales(run: Run) -> None:
    evaluator = NetworkBuilder(run)
    assert evaluator.quantizers is not None
    candidate = run.family.extremes()["largest/int4"]
    learned = evaluator.network(candidate)
    plain = build_network(run.family, evaluator.supernet, candidate, run.task, evaluator.calibration)
    codes = {name: parameters.weight.codes for name, parameters in learned.parameters.items()}
    assert all(np.abs(weight).max() <= 8 for weight in codes.values())
    assert any(not np.array_equal(codes[name], plain.parameters[name].weight.codes) for name in codes)


@pytest.mark.slow
def test_transformers_learn_to_be_rounded(tmp_path: Path) -> None:
    """In 2 bits the phase helps, in 8, which need none, it does not hurt."""
    config = RunConfig(
        train=TrainConfig(epochs=5, random_subnets=0, batch_size=64),
        space=SpaceSection(name="digits-vit", formats=("fp32", "int8", "int2")),
        quantized=QuantizedSection(epochs=1.5, batch_size=64),
    )
    run = open_run(tmp_path / "run", config)
    run_train(run, QUIET)
    builder, before = NetworkBuilder(run), load_supernet(run.family, run.checkpoint_path)

    def gain(number_format: str) -> float:
        """Accuracy on search-validation, after the phase less before, the mean of both ends of the space."""
        gains = []
        for candidate in (run.family.extreme(size, number_format) for size in SIZES):
            plain = build_network(run.family, before, candidate, run.task, builder.calibration)
            both = (
                simulated_metric(n, run.task.validation, run.task)
                for n in (builder.network(candidate), plain)
            )
            gains.append(next(both) - next(both))
        return float(np.mean(gains))

    assert gain("int2") > 0
    assert gain("int8") > -ERROR


def test_networks_in_fp32_are_as_without_scales(run: Run) -> None:
    evaluator = NetworkBuilder(run)
    candidate = run.family.extremes()["largest/fp32"]
    plain = build_network(run.family, evaluator.supernet, candidate, run.task, evaluator.calibration)
    found = simulated_metric(evaluator.network(candidate), run.task.validation, run.task)
    assert found == pytest.approx(simulated_metric(plain, run.task.validation, run.task), abs=0.02)


def test_the_phase_is_part_of_what_a_run_depends_on(run: Run) -> None:
    without = Run(run.folder, replace(run.config, quantized=QuantizedSection()))
    vars(without)["task"] = run.task
    assert without.fingerprint("train") != run.fingerprint("train")


def test_narrow_formats_get_a_phase_unless_the_configuration_says_otherwise() -> None:
    filled, note = with_defaults({"space": {"formats": ["fp32", "int4"]}})
    assert filled["quantized"] == {"epochs": 4.0}
    assert "a quantized phase of 4 epochs" in note
    said = {"space": {"formats": ["fp32", "int4"]}, "quantized": {"epochs": 0.0}}
    assert with_defaults(said) == (said, "")
    assert with_defaults({"space": {"formats": ["fp32", "int8"]}})[1] == ""


def test_a_phase_that_cannot_train_is_refused() -> None:
    with pytest.raises(TrilobitError, match=r"quantized\.epochs must be a number from 0 to 10,000, got -1"):
        RunConfig(quantized=QuantizedSection(epochs=-1.0))
