"""What a run says of its own predictions: `quality.json`, its table, and where its rows come from."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from hw_profiles.profiles.latency_model import Validation
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import save_profile
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.run.config import DeviceSection, RunConfig
from nas.run.reporting import PlainReporter
from nas.run.run import Run
from nas.stages.quality import (
    cost_bands_of,
    finalist_rows,
    metric_noise,
    print_quality,
    profile_rows,
    read_quality,
    row,
    write_quality,
)
from predictors.assessment.quality import judge
from predictors.predictor import Prediction
from supernet.data.images import Images
from supernet.families.family import Family
from supernet.space.space import Genomes
from supernet.tasks.image_classification import ImageClassification


@pytest.fixture
def run(tmp_path: Path, profile_file: Path) -> Run:
    """Nothing but a configuration."""
    return Run(tmp_path, RunConfig(device=DeviceSection(name=f"recorded:{profile_file}")))


@pytest.fixture
def profiled(run: Run, device_profile: DeviceProfile) -> Run:
    run.profile_path.parent.mkdir()
    save_profile(device_profile, run.profile_path)
    return run


class Exact:
    """Knows the accuracy of `entry`, which is the sum of the genes in percent."""

    def fit(self, genomes: Genomes, targets: np.ndarray) -> "Exact":
        return self

    def predict(self, genomes: Genomes) -> Prediction:
        return Prediction(genomes.sum(axis=1) / 100, np.full(len(genomes), 0.01))


def write_front(run: Run, genomes: Genomes, *, failed: int | None = None) -> None:
    entries = []
    for i, genome in enumerate(genomes):
        latency = {"value": 1e-4 * (i + 1), "std": 1e-5}
        entries.append(
            {
                "id": f"n{i}",
                "genes": genome.tolist(),
                "predicted": {"latency": latency, "size": {"value": 1000.0 + i}},
                "measured": {
                    "accuracy": {"value": float(genome.sum()) / 100},
                    "latency": {
                        "value": 1e308 * 1.7976931348623157 if i == failed else 1e-4 * (i + 1.5),
                        "iqr": 2e-6,
                    },
                    "size": {"value": 1000.0 + i},
                },
            }
        )
    document = {
        "schema": "front/1",
        "space": {"name": "digits-mbconv", "fingerprint": "0", "size": 1},
        "device": "none",
        "objectives": [],
        "rounds": [],
        "candidates": entries[:3],
        "evaluated": entries[3:],
        "reference": entries[0],
    }
    write_json(run.front_path, document)


def test_bands_are_of_latency_where_there_is_a_profile(profiled: Run, family: Family) -> None:
    genomes = family.space().sample(20, rng=np.random.default_rng(0))
    name, seconds = cost_bands_of(profiled, genomes)
    assert name == "latency"
    assert 0 < seconds.min() < seconds.max() < 1
    profiled.profile_path.unlink()
    name, macs = cost_bands_of(profiled, genomes)
    assert name == "macs"
    assert macs.min() > 1000


def test_the_profile_is_judged_by_networks_it_was_not_fitted_to(
    profiled: Run, device_profile: DeviceProfile
) -> None:
    [found] = profile_rows(profiled)
    assert (found["objective"], found["source"]) == ("latency", "profile")
    calibration = device_profile.calibration
    assert calibration is not None
    held = calibration.held_out_error()
    assert (found["n_test"], found["n_train"]) == (held["n"], len(calibration.networks) - held["n"])
    assert found["kendall_tau"] == pytest.approx(held["kendall_tau"])
    iqr = [network.iqr_s for network in calibration.networks if network.held_out]
    assert found["noise"] == pytest.approx(np.sqrt(np.mean(np.square(iqr))) / 1.349)


def test_no_network_judges_its_own_spread(profiled: Run, device_profile: DeviceProfile) -> None:
    """Of two networks that are 1 % and 20 % off, each is told by the other alone: 20 % are outside 1 %."""
    calibration = device_profile.calibration
    assert calibration is not None
    one, other = [network for network in calibration.networks if network.held_out][:2]
    said_s = calibration.predict_networks_s([one, other])
    off = (replace(one, measured_s=said_s[0] / 1.01), replace(other, measured_s=said_s[1] / 1.2))
    for networks, observed in ((off, 0.5), ((one,), None)):
        validation = None if observed else Validation(0, "2026-01-01", (other,))
        held = replace(device_profile, calibration=replace(calibration, networks=networks))
        save_profile(replace(held, validation=validation), profiled.profile_path)
        [found] = profile_rows(profiled)
        assert found["n_test"] == 2
        assert found["coverage"] == observed


def test_without_a_profile_nothing_is_said_of_latency(run: Run) -> None:
    assert profile_rows(run) == []


def test_finalists_that_were_learned_from_or_failed_are_left_out(run: Run, family: Family) -> None:
    genomes = family.space().sample(12, rng=np.random.default_rng(0))
    write_front(run, genomes, failed=11)
    accuracy, latency, size = finalist_rows(run, Exact(), genomes[:4])
    assert (accuracy["n_test"], latency["n_test"], size["n_test"]) == (7, 11, 11)
    assert accuracy["rmse"] == pytest.approx(0)
    assert latency["rmse"] == pytest.approx(5e-5)
    assert latency["noise"] == pytest.approx(2e-6 / 1.349)
    assert (size["rmse"], size["kendall_tau"]) == (0, 1)


def test_a_few_networks_compared_image_by_image_tell_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = Images(np.zeros((4000, 1, 1, 1), np.uint8), np.zeros(4000, np.int64))
    hard = rng.random(4000) < 0.2  # for all networks

    def outputs(*_: object) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[(hard | (rng.random(4000) < 0.1)).astype(np.int64)]

    monkeypatch.setattr("nas.stages.quality.simulated_outputs", outputs)
    task = ImageClassification("noise", ("a", "b"), images, images, images, (0.5,), (0.5,))
    family = SimpleNamespace(space=lambda: SimpleNamespace(candidate=tuple))
    run = SimpleNamespace(task=task, family=family)
    builder = SimpleNamespace(run=run, network=lambda candidate: candidate)
    evaluator = SimpleNamespace(builder=builder, scoring=images)
    noise = metric_noise(evaluator, np.zeros((6, 3), np.int16))  # type: ignore[arg-type]
    assert noise == pytest.approx(np.sqrt(0.8 * 0.1 * 0.9 / 4000), rel=0.1)  # nothing of the hard images


def test_few_scoring_images_are_drawn_from_all_that_are_sorted_by_class() -> None:
    labels = np.repeat(np.arange(10), 50)
    sorted_images = Images(np.zeros((500, 1, 1, 1), np.uint8), labels)
    config = SimpleNamespace(seed=3, sample=SimpleNamespace(images=200))
    run = SimpleNamespace(task=SimpleNamespace(validation=sorted_images), config=config)
    drawn = SupernetEvaluator(NetworkBuilder(run)).scoring.labels  # type: ignore[arg-type]
    assert len(drawn) == 200
    assert np.bincount(drawn, minlength=10).min() >= 10
    np.testing.assert_array_equal(drawn, SupernetEvaluator(NetworkBuilder(run)).scoring.labels)  # type: ignore[arg-type]


def test_the_table_names_every_row(run: Run) -> None:
    values = np.arange(30.0)
    rows = [
        row("accuracy", "cross-validation", judge(values, values, std=values + 1, noise=0.5)),
        row("size", "finalists", judge(values, values)),
    ]
    write_quality(run, rows)
    lines: list[str] = []
    document = print_quality(run, PlainReporter(lines.append))
    assert document["quality"]["rows"][0]["kendall_tau"] == pytest.approx(1)
    for word in ("30 cross-validation", "30 finalists", "100/100/100/100", "accuracy", "size"):
        assert word in "\n".join(lines)


def test_a_file_of_another_version_is_refused(run: Run) -> None:
    write_json(run.quality_path, {"schema": "quality/1", "objectives": {}})
    with pytest.raises(TrilobitError, match="quality/2"):
        read_quality(run)
