"""Weights go from one supernet into another where the architecture is the same, and nowhere else."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from supernet.data.images import Images
from supernet.families.family import FAMILIES, Family, load_family
from supernet.tasks.image_classification import ImageClassification
from supernet.train.checkpoint import (
    Weights,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
    trained_weights,
)
from supernet.train.initial import identity, start_from, weights_path
from supernet.train.loop import TrainConfig, load_supernet, train

CONFIG = TrainConfig(epochs=1, batch_size=16, random_subnets=0, checkpoint_s=0.0)
CLASSES = ("ant", "bee", "cow")


def family_of(classes: int = 3, channels: int = 1, **options: tuple[str, ...]) -> Family:
    return load_family("digits-mbconv", in_channels=channels, classes=classes, **options)


def data_of(classes: tuple[str, ...] = CLASSES, channels: int = 1, seed: int = 0) -> ImageClassification:
    """Noise, in which nothing is to be learned: 32 images a part."""
    rng = np.random.default_rng(seed)
    parts = [
        Images(rng.integers(0, 256, (32, 16, 16, channels), np.uint8), np.arange(32) % len(classes))
        for _ in range(3)
    ]
    return ImageClassification("noise", classes, *parts, (0.5,) * channels, (0.3,) * channels)


@pytest.fixture(scope="module")
def family() -> Family:
    return family_of()


@pytest.fixture(scope="module")
def data() -> ImageClassification:
    return data_of()


@pytest.fixture(scope="module")
def trained(family: Family, data: ImageClassification, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with averaged weights, two steps long."""
    path = tmp_path_factory.mktemp("trained") / "last.pt"
    list(train(family, data, replace(CONFIG, ema=0.5), path, seed=1))
    return path


def first_state(
    family: Family, data: ImageClassification, folder: Path, init: Path, **settings: object
) -> dict[str, torch.Tensor]:
    """The weights that a training of no epochs ends with."""
    config = TrainConfig(**{"epochs": 0, "init": str(init), **settings})
    list(train(family, data, config, folder / "last.pt", seed=2))
    return load_supernet(family, folder / "last.pt").state_dict()


def logits(family: Family, state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    net = family.supernet(rng=np.random.default_rng(0))
    net.load_state_dict(state)
    return net(x, family.arch(family.extremes()["largest/fp32"]))


# -- what is used ---------------------------------------------------------------------------------


def test_the_averaged_weights_are_used_as_they_are(
    family: Family, data: ImageClassification, trained: Path, tmp_path: Path
) -> None:
    state = load_checkpoint(trained, fingerprint=family.space().fingerprint)
    found = first_state(family, data, tmp_path, trained)
    assert not torch.equal(state["model"]["stem.weight"], state["ema"]["module.stem.weight"])
    for name, tensor in trained_weights(state).items():
        assert torch.equal(found[name], tensor), name


def test_an_average_starts_at_the_weights_it_was_given(
    family: Family, data: ImageClassification, trained: Path, tmp_path: Path
) -> None:
    plain = first_state(family, data, tmp_path / "plain", trained)
    averaged = first_state(family, data, tmp_path / "averaged", trained, ema=0.9)
    assert torch.equal(averaged["stem.weight"], plain["stem.weight"])


def test_number_formats_do_not_matter(data: ImageClassification, trained: Path, tmp_path: Path) -> None:
    other = family_of(formats=("int8", "int4"))
    assert other.space().fingerprint != family_of().space().fingerprint
    found = first_state(other, data, tmp_path, trained)
    assert torch.equal(found["stem.weight"], load_weights(trained).tensors["stem.weight"])


def test_what_an_import_writes_serves(family: Family, data: ImageClassification, tmp_path: Path) -> None:
    net = family.supernet(rng=np.random.default_rng(7))
    state = {"space": family.space().fingerprint, "model": net.state_dict(), "step": 0, "steps": 0}
    save_checkpoint(tmp_path / "imported.pt", state)
    found = first_state(family, data, tmp_path, tmp_path / "imported.pt")
    assert torch.equal(found["stem.weight"], net.state_dict()["stem.weight"])


def test_training_goes_on_from_the_weights(
    family: Family, data: ImageClassification, trained: Path, tmp_path: Path
) -> None:
    """A step of no size leaves them where they were."""
    config = replace(CONFIG, init=str(trained), learning_rate=1e-30, weight_decay=0.0)
    list(train(family, data, config, tmp_path / "last.pt", seed=2))
    found, expected = load_weights(tmp_path / "last.pt").tensors, load_weights(trained).tensors
    assert torch.allclose(found["head.weight"], expected["head.weight"])


# -- what is adapted ------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [("ant", "bee", "cow", "dog"), ("ant", "bee"), ("one", "two", "three")])
def test_other_classes_get_a_classifier_of_their_own(trained: Path, classes: tuple[str, ...]) -> None:
    family = family_of(len(classes))
    net = family.supernet(rng=np.random.default_rng(3))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    begun = start_from(net, load_weights(trained), classes, origin="x")
    assert begun.renewed == ("classifier.weight", "classifier.bias")
    [note] = begun.notes
    assert f"the data has {len(classes)} classes" in note
    after, expected = net.state_dict(), load_weights(trained).tensors
    for name in before:
        assert torch.equal(after[name], before[name] if name in begun.renewed else expected[name]), name


def test_the_same_classes_keep_their_classifier(family: Family, trained: Path) -> None:
    net = family.supernet(rng=np.random.default_rng(3))
    assert start_from(net, load_weights(trained), CLASSES, origin="x") == start_from(
        net, replace(load_weights(trained), classes=()), CLASSES, origin="x"
    )
    assert torch.equal(
        net.state_dict()["classifier.weight"], load_weights(trained).tensors["classifier.weight"]
    )


def test_other_classes_need_training(data: ImageClassification, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match=r"classifier.bias must be learned .* train.epochs is 0"):
        first_state(family_of(4), data_of(("a", "b", "c", "d")), tmp_path, trained)
    assert not (tmp_path / "last.pt").exists()


def test_grey_is_three_equal_channels() -> None:
    colour, grey = family_of(channels=3), family_of(channels=1)
    weights = Weights(colour.supernet(rng=np.random.default_rng(5)).state_dict())
    net = grey.supernet(rng=np.random.default_rng(0))
    begun = start_from(net, weights, CLASSES, origin="x")
    assert begun.renewed == ()
    assert "grey counts as three equal channels" in begun.notes[0]
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = logits(colour, dict(weights.tensors), x.expand(-1, 3, -1, -1))
    torch.testing.assert_close(logits(grey, net.state_dict(), x), expected)


def test_colour_does_not_fit_grey() -> None:
    weights = Weights(family_of(channels=1).supernet(rng=np.random.default_rng(5)).state_dict())
    net = family_of(channels=3).supernet(rng=np.random.default_rng(0))
    with pytest.raises(TrilobitError, match=r"1 of \d+ tensors differ.*: stem.weight 8x1x3x3 for 8x3x3x3$"):
        start_from(net, weights, CLASSES, origin="x")


def test_an_unfinished_training_is_named(
    family: Family, data: ImageClassification, trained: Path, tmp_path: Path
) -> None:
    next(train(family, data, replace(CONFIG, epochs=3), tmp_path / "last.pt", seed=1))
    weights = load_weights(tmp_path / "last.pt")
    begun = start_from(family.supernet(rng=np.random.default_rng(0)), weights, CLASSES, origin="x")
    assert begun.notes == ("its training was stopped 5 steps before its end",)


# -- what is refused ------------------------------------------------------------------------------


def test_another_architecture_is_refused_by_name_and_shape(trained: Path) -> None:
    other = load_family("cifar-mbconv", in_channels=1, classes=3)
    net = other.supernet(rng=np.random.default_rng(0))
    with pytest.raises(TrilobitError) as refusal:
        start_from(net, load_weights(trained), CLASSES, origin="mine.pt")
    message = str(refusal.value)
    assert message.startswith("mine.pt: does not fit this space, its space is 'digits-mbconv' (--space); ")
    assert "stem.weight 8x1x3x3 for 16x1x3x3; " in message
    assert message.count(" for ") == 11  # ten names after "found for wanted"
    assert " more" in message


@pytest.mark.parametrize(("change", "listed"), [("lost", "none for 96"), ("added", "extra 2 for none")])
def test_missing_and_unknown_tensors_are_named(
    family: Family, trained: Path, change: str, listed: str
) -> None:
    weights = load_weights(trained)
    tensors = dict(weights.tensors)
    if change == "lost":
        del tensors["head.norm.bias"]
    else:
        tensors["extra"] = torch.zeros(2)
    with pytest.raises(TrilobitError, match=f"1 of 1[0-9]+ tensors differ.*{listed}$"):
        start_from(
            family.supernet(rng=np.random.default_rng(0)),
            replace(weights, tensors=tensors),
            CLASSES,
            origin="x",
        )


def test_no_epochs_need_weights() -> None:
    with pytest.raises(TrilobitError, match=r"train.epochs must be above 0, got 0; give some"):
        TrainConfig(epochs=0)
    with pytest.raises(TrilobitError, match=r"train.epochs must be a whole number from 0 to [0-9,]+, got -1"):
        TrainConfig(epochs=-1, init="x.pt")


def test_what_is_not_shipped_is_refused() -> None:
    with pytest.raises(TrilobitError, match=r"no checkpoint 'mine' is shipped; known: .*cifar-mbconv"):
        weights_path("shipped:mine")


# -- the file is part of what a training is ---------------------------------------------------------


def test_resuming_needs_the_file_no_more(
    family: Family, data: ImageClassification, trained: Path, tmp_path: Path
) -> None:
    init = tmp_path / "init.pt"
    init.write_bytes(trained.read_bytes())
    config = replace(CONFIG, epochs=2, init=str(init))
    list(train(family, data, config, tmp_path / "whole.pt", seed=1))
    list(islice(train(family, data, config, tmp_path / "resumed.pt", seed=1), 2))
    init.unlink()
    list(train(family, data, config, tmp_path / "resumed.pt", seed=1))
    found, expected = (load_weights(tmp_path / name).tensors for name in ("resumed.pt", "whole.pt"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    state = load_checkpoint(tmp_path / "resumed.pt", fingerprint=family.space().fingerprint)
    assert state["config"]["init"] == identity(str(trained))  # still known


def test_a_moved_file_is_the_same_and_another_content_is_not(
    family: Family, data: ImageClassification, trained: Path, tmp_path: Path
) -> None:
    moved, path = tmp_path / "moved.pt", tmp_path / "last.pt"
    moved.write_bytes(trained.read_bytes())
    list(islice(train(family, data, replace(CONFIG, init=str(trained)), path, seed=1), 1))
    next(train(family, data, replace(CONFIG, init=str(moved)), path, seed=1))
    save_weights(moved, load_weights(trained))
    for init in (str(moved), "none"):
        with pytest.raises(TrilobitError, match="another config"):
            next(train(family, data, replace(CONFIG, init=init), path, seed=1))


def test_a_missing_file_is_refused_before_anything_is_written(
    family: Family, data: ImageClassification, tmp_path: Path
) -> None:
    config = replace(CONFIG, init=str(tmp_path / "none.pt"))
    with pytest.raises(TrilobitError, match=r"none.pt: no such checkpoint"):
        next(train(family, data, config, tmp_path / "last.pt", seed=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_learns_exactly_what_depends_on_the_classes(name: str) -> None:
    found, wanted = (
        load_family(name, in_channels=3, classes=n).supernet(rng=np.random.default_rng(0)) for n in (3, 4)
    )
    shapes = found.state_dict()
    differ = {n for n, tensor in wanted.state_dict().items() if tensor.shape != shapes[n].shape}
    begun = start_from(wanted, Weights(shapes), ("a", "b", "c", "d"), origin="x")
    assert set(begun.renewed) == differ
