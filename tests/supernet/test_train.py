"""Training resumes exactly, refuses what does not belong to it, and follows its recipe."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from supernet.data.images import Images
from supernet.families.family import Family, load_family
from supernet.tasks import image_classification
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from supernet.tasks.losses import distillation_loss
from supernet.train.checkpoint import load_checkpoint
from supernet.train.loop import TrainConfig, load_supernet, train
from supernet.train.sampling import sandwich

CONFIG = TrainConfig(epochs=3, batch_size=32, checkpoint_s=0.0)


@pytest.fixture(scope="module")
def family(small_family: Family) -> Family:
    return small_family


@pytest.fixture(scope="module")
def digits() -> ImageClassification:
    """A few of the digits: four steps a pass."""
    whole = load_images("digits", seed=0)
    return replace(whole, train=Images(whole.train.pixels[:128], whole.train.labels[:128]))


def assert_same(actual: object, expected: object) -> None:
    """Equal containers of equal values and bitwise equal tensors."""
    if isinstance(expected, torch.Tensor):
        assert isinstance(actual, torch.Tensor)
        assert torch.equal(actual, expected)
    elif isinstance(expected, dict):
        assert isinstance(actual, dict)
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_same(actual[key], value)
    else:
        assert actual == expected


def test_resumed_training_ends_with_the_same_weights(
    family: Family, digits: ImageClassification, tmp_path: Path
) -> None:
    whole, resumed = tmp_path / "whole.pt", tmp_path / "resumed.pt"
    steps = list(train(family, digits, CONFIG, whole, seed=1))
    list(islice(train(family, digits, CONFIG, resumed, seed=1), 5))  # killed after five steps
    rest = list(train(family, digits, CONFIG, resumed, seed=1))
    assert len(steps) == 12
    assert 5 + len(rest) == 12
    fingerprint = family.space().fingerprint
    expected, found = (load_checkpoint(path, fingerprint=fingerprint) for path in (whole, resumed))
    assert min(state.pop("seconds") for state in (expected, found)) > 0
    assert_same(found, expected)
    assert found["losses"].tolist() == [progress.loss for progress in steps]
    assert [progress.loss for progress in rest] == [progress.loss for progress in steps[5:]]


def test_finished_training_is_found(family: Family, digits: ImageClassification, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    list(train(family, digits, CONFIG, path, seed=1))
    before = path.stat().st_mtime_ns
    (only,) = train(family, digits, CONFIG, path, seed=1)
    assert (only.step, only.steps) == (12, 12)
    assert path.stat().st_mtime_ns == before


def test_loss_falls(family: Family, digits: ImageClassification, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=20, checkpoint_s=1e9)
    losses = [progress.loss for progress in train(family, digits, config, tmp_path / "last.pt", seed=1)]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.3


@pytest.mark.parametrize(
    ("what", "config", "seed"), [("config", replace(CONFIG, learning_rate=0.1), 1), ("seed", CONFIG, 2)]
)
def test_checkpoint_of_other_training_is_refused(
    family: Family, digits: ImageClassification, tmp_path: Path, what: str, config: TrainConfig, seed: int
) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, digits, CONFIG, path, seed=1), 2))
    with pytest.raises(TrilobitError, match=f"another {what}"):
        next(train(family, digits, config, path, seed=seed))


def test_checkpoint_of_other_data_is_refused(
    family: Family, digits: ImageClassification, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    next(train(family, digits, CONFIG, path, seed=1))
    other = replace(digits, train=Images(255 - digits.train.pixels, digits.train.labels))
    with pytest.raises(TrilobitError, match="another data; use another run folder"):
        next(train(family, other, CONFIG, path, seed=1))


def test_checkpoint_of_another_space_is_refused(
    family: Family, digits: ImageClassification, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, digits, CONFIG, path, seed=1), 2))
    with pytest.raises(TrilobitError, match="trained for space"):
        load_supernet(load_family("cifar-mbconv", in_channels=1, classes=10), path)


def test_unfinished_supernet_is_refused(family: Family, digits: ImageClassification, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    list(islice(train(family, digits, CONFIG, path, seed=1), 2))
    with pytest.raises(TrilobitError, match="step 2 of 12"):
        load_supernet(family, path)


def test_sandwich_has_both_ends(family: Family) -> None:
    archs = sandwich(family, 2, rng=np.random.default_rng(0))
    corners = family.extremes()
    assert len(archs) == 4
    assert archs[0] == corners["largest/fp32"]
    assert archs[-1] == corners["smallest/fp32"]


def test_sandwich_draws_what_lies_between(family: Family) -> None:
    first, again, other = (sandwich(family, 3, rng=np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first[1:-1] != other[1:-1]
    assert len(sandwich(family, 0, rng=np.random.default_rng(0))) == 2


def test_distillation_moves_the_student_towards_the_teacher_only() -> None:
    teacher, student = torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(0)).unbind()
    teacher.requires_grad_()
    student.requires_grad_()
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    expected = (student.softmax(1) - teacher.softmax(1)) / len(student)  # gradient of a mean cross-entropy
    torch.testing.assert_close(student.grad, expected.detach())


def test_training_forward_leaves_the_statistics_alone(family: Family) -> None:
    net = family.supernet(rng=np.random.default_rng(0)).train()
    before = {name: tensor.clone() for name, tensor in net.named_buffers()}
    arch = family.arch(family.extremes()["largest/fp32"])
    images = 3 + torch.randn(8, 1, arch.resolution, arch.resolution)
    assert not torch.equal(net(images, arch), net.eval()(images, arch))  # the batch's own were used
    for name, tensor in net.named_buffers():
        assert torch.equal(tensor, before[name]), name


def test_every_pass_sees_every_image_once(
    family: Family, digits: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    numbered = replace(digits, train=Images(digits.train.pixels, np.arange(len(digits.train.labels))))

    def record(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        seen.append(labels.numpy())
        return logits.sum()

    monkeypatch.setattr(image_classification, "label_loss", record)
    list(train(family, numbered, replace(CONFIG, epochs=2, random_subnets=0), tmp_path / "last.pt", seed=1))
    first, second = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    assert sorted(first) == sorted(second) == list(range(128))
    assert first.tolist() != second.tolist()


def test_learning_rate_rises_then_falls_as_a_cosine(
    family: Family, digits: ImageClassification, tmp_path: Path
) -> None:
    path, rates = tmp_path / "last.pt", []
    config = replace(CONFIG, epochs=5, warmup=0.2, random_subnets=0)
    for _ in train(family, digits, config, path, seed=1):
        state = load_checkpoint(path, fingerprint=family.space().fingerprint)
        (rate,) = {group["lr"] for group in state["optimiser"]["param_groups"]}
        rates.append(rate / config.learning_rate)
    rising, falling = np.array(rates[:4]), np.array(rates[4:])
    np.testing.assert_allclose(rising, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(falling, np.cos(np.pi / 2 * np.arange(16) / 16) ** 2)


def test_steep_gradients_are_clipped(
    family: Family, digits: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        return 1e6 * logits[:, 0].sum()

    monkeypatch.setattr(image_classification, "label_loss", steep)
    path = tmp_path / "last.pt"
    next(train(family, digits, CONFIG, path, seed=1))
    state = load_checkpoint(path, fingerprint=family.space().fingerprint)["optimiser"]
    (beta, _) = state["param_groups"][0]["betas"]
    gradients = [entry["exp_avg"] / (1 - beta) for entry in state["state"].values()]  # after a single step
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert float(norm) == pytest.approx(CONFIG.clip_norm, rel=1e-4)  # float32


def test_only_weights_decay(family: Family, digits: ImageClassification, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    next(train(family, digits, CONFIG, path, seed=1))
    groups = load_checkpoint(path, fingerprint=family.space().fingerprint)["optimiser"]["param_groups"]
    net = family.supernet(rng=np.random.default_rng(0))
    matrices = sum(parameter.ndim > 1 for parameter in net.parameters())
    assert {(len(group["params"]), group["weight_decay"]) for group in groups} == {
        (matrices, CONFIG.weight_decay),
        (len(list(net.parameters())) - matrices, 0.0),
    }


@pytest.mark.parametrize("name", ["epochs", "batch_size", "learning_rate"])
def test_a_configuration_that_cannot_train_is_refused(name: str) -> None:
    with pytest.raises(TrilobitError, match=f"train.{name} must be .*, got 0"):
        TrainConfig(**{name: 0})
