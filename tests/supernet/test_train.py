"""Training resumes exactly, refuses what does not belong to it, and runs no code from a file."""

import pickle
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from supernet.family import Family, load_family
from supernet.train.checkpoint import load_checkpoint, save_checkpoint
from supernet.train.data import Dataset, load_data
from supernet.train.images import Images
from supernet.train.loop import TrainConfig, load_supernet, train
from supernet.train.losses import distillation_loss
from supernet.train.sampling import sandwich

CONFIG = TrainConfig(epochs=3, batch_size=32, checkpoint_s=0.0)


@pytest.fixture(scope="module")
def family() -> Family:
    return load_family("digits-mbconv", in_channels=1, classes=10)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """A few of the digits: four steps a pass."""
    whole = load_data("digits", seed=0)
    return replace(whole, train=Images(whole.train.pixels[:128], whole.train.labels[:128]))


def test_resumed_training_ends_with_the_same_weights(family: Family, digits: Dataset, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole.pt", tmp_path / "resumed.pt"
    steps = list(train(family, digits, CONFIG, whole, seed=1))
    list(islice(train(family, digits, CONFIG, resumed, seed=1), 5))  # killed after five steps
    rest = list(train(family, digits, CONFIG, resumed, seed=1))
    assert len(steps) == 12
    assert 5 + len(rest) == 12
    expected, found = (load_supernet(family, path).state_dict() for path in (whole, resumed))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_finished_training_is_found(family: Family, digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    list(train(family, digits, CONFIG, path, seed=1))
    before = path.stat().st_mtime_ns
    (only,) = train(family, digits, CONFIG, path, seed=1)
    assert (only.step, only.steps) == (12, 12)
    assert path.stat().st_mtime_ns == before


def test_loss_falls(family: Family, digits: Dataset, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=10, checkpoint_s=1e9)
    losses = [progress.loss for progress in train(family, digits, config, tmp_path / "last.pt", seed=1)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.3


@pytest.mark.parametrize(
    ("what", "config", "seed"), [("config", replace(CONFIG, learning_rate=0.1), 1), ("seed", CONFIG, 2)]
)
def test_checkpoint_of_other_training_is_refused(
    family: Family, digits: Dataset, tmp_path: Path, what: str, config: TrainConfig, seed: int
) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, digits, CONFIG, path, seed=1), 2))
    with pytest.raises(TrilobitError, match=f"another {what}"):
        next(train(family, digits, config, path, seed=seed))


def test_checkpoint_of_another_space_is_refused(family: Family, digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, digits, CONFIG, path, seed=1), 2))
    with pytest.raises(TrilobitError, match="trained for space"):
        load_supernet(load_family("cifar-mbconv", in_channels=1, classes=10), path)


def test_unfinished_supernet_is_refused(family: Family, digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, digits, CONFIG, path, seed=1), 2))
    with pytest.raises(TrilobitError, match="step 2 of 12"):
        load_supernet(family, path)


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"space": "x", "weights": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(TrilobitError, match="not a checkpoint"):
        load_checkpoint(path, fingerprint="x")


class Trap:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, writer: str) -> None:
    path, sprung = tmp_path / "last.pt", tmp_path / "sprung"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"schema": "supernet/1", "model": Trap(sprung)}))
    else:
        torch.save({"schema": "supernet/1", "model": Trap(sprung)}, path)
    with pytest.raises(TrilobitError):
        load_checkpoint(path, fingerprint="x")
    assert not sprung.exists()


def test_sandwich_has_both_ends(family: Family) -> None:
    archs = sandwich(family, 2, rng=np.random.default_rng(0))
    corners = family.corners()
    assert len(archs) == 4
    assert archs[0] == family.arch(corners["largest/fp32"])
    assert archs[-1] == family.arch(corners["smallest/fp32"])


def test_distillation_does_not_move_the_teacher() -> None:
    teacher, student = torch.randn(4, 10, requires_grad=True), torch.randn(4, 10, requires_grad=True)
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
