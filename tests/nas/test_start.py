"""`nas train --init`: own data from another supernet's weights, and files that are none."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import supernet.zoo
from nas.cli.main import main
from nas.run.config_file import read_config
from supernet.families.family import load_family
from supernet.train.checkpoint import Weights, load_weights, save_weights

CLASSES = ("ant", "bee", "cow")
Train = Callable[..., str]
WriteImages = Callable[..., Path]


def write_weights(
    path: Path, *, space: str = "digits-mbconv", classes: tuple[str, ...] = CLASSES, seed: int = 0
) -> Path:
    channels = 3 if space.startswith("cifar") else 1
    family = load_family(space, in_channels=channels, classes=len(classes))
    net = family.supernet(rng=np.random.default_rng(seed))
    save_weights(path, Weights(net.state_dict(), space, classes, data="elsewhere"))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, write_images: WriteImages) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "images", CLASSES)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "weights.pt")


@pytest.fixture
def train(tmp_path: Path, images: Path, profile_file: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """`nas train` on the images in the run folder; gives what it said."""

    def command(*arguments: str | Path, code: int = 0, data: str | None = None) -> str:
        # what was recorded is of digits: other data has other units, which its profile lacks
        device = "ort" if data else f"recorded:{profile_file}"
        words = ["train", "--device", device, "--data", data or f"imagefolder:{images}"]
        assert main([*words, "-o", str(tmp_path / "run"), *map(str, arguments)]) == code
        printed, complaint = capsys.readouterr()
        if code:
            [line] = complaint.splitlines()
            return line
        return " ".join(printed.split())

    return command


def stem(folder: Path) -> torch.Tensor:
    return load_weights(folder / "run" / "supernet" / "last.pt").tensors["stem.weight"]


# -- own data -------------------------------------------------------------------------------------


def test_own_classes_are_learned_from_other_weights(train: Train, tmp_path: Path) -> None:
    init = write_weights(tmp_path / "other.pt", classes=("one", "two"))
    said = train("--init", init, "--epochs", "1")
    assert f"first weights: {init}, then 1 epochs" in said
    assert "the classifier is learned anew: the data has 3 classes, it knew 2 others" in said
    assert load_weights(tmp_path / "run" / "supernet" / "last.pt").classes == CLASSES
    assert not torch.equal(stem(tmp_path), load_weights(init).tensors["stem.weight"])


def test_the_same_classes_need_no_training(train: Train, tmp_path: Path, weights: Path) -> None:
    said = train("--init", weights, "--epochs", "0")
    assert "used as they are" in said
    assert "which makes accuracies there too good" in said  # other images of the same classes
    assert torch.equal(stem(tmp_path), load_weights(weights).tensors["stem.weight"])
    config = read_config(tmp_path / "run" / "run.toml").train
    assert (config.init, config.epochs) == (str(weights), 0)


def test_other_classes_need_training(train: Train, tmp_path: Path) -> None:
    init = write_weights(tmp_path / "other.pt", classes=("one", "two"))
    assert "must be learned for this data, but train.epochs is 0" in train(
        "--init", init, "--epochs", "0", code=2
    )


def test_another_space_is_named(train: Train, tmp_path: Path) -> None:
    init = write_weights(tmp_path / "other.pt", space="cifar-mbconv")
    line = train("--init", init, "--space", "digits-mbconv", code=2)
    assert "does not fit this space, its space is 'cifar-mbconv' (--space)" in line
    assert "stem.weight 16x3x3x3 for 8x1x3x3" in line


@pytest.mark.slow
def test_the_folder_knows_the_file_by_its_content(train: Train, tmp_path: Path, weights: Path) -> None:
    train("--init", weights, "--epochs", "1")
    moved = shutil.move(weights, tmp_path / "moved.pt")
    assert "train: already there" in train("--init", moved)
    moved.unlink()
    assert "train: already there" in train()
    write_weights(moved, seed=1)
    assert "was trained with another config" in train(code=2)


# -- CIFAR-10 -------------------------------------------------------------------------------------


@pytest.fixture
def cifar(tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ten classes that are not CIFAR-10's, and a shipped supernet that knows them."""
    classes = tuple("abcdefghij")
    monkeypatch.setattr(supernet.zoo, "FOLDER", tmp_path)
    write_weights(tmp_path / "cifar-pooled.pt", space="cifar-pooled", classes=classes)
    return f"cifar10:{write_images(tmp_path / 'cifar', classes, colour=True)}"


def test_cifar_starts_from_the_shipped_supernet(train: Train, tmp_path: Path, cifar: str) -> None:
    said = train(data=cifar)
    assert "where nothing was said: space cifar-pooled, the shipped supernet as it is" in said
    assert "first weights: shipped:cifar-pooled, used as they are" in said
    expected = load_weights(tmp_path / "cifar-pooled.pt").tensors["stem.weight"]
    assert torch.equal(stem(tmp_path), expected)
    config = read_config(tmp_path / "run" / "run.toml")
    assert (config.space.name, config.train.init, config.train.epochs) == (
        "cifar-pooled",
        "shipped:cifar-pooled",
        0,
    )
    again = train(data=cifar)
    assert "train: already there" in again
    assert "where nothing was said" not in again  # the folder says all of it now


def test_none_trains_from_scratch(train: Train, tmp_path: Path, cifar: str) -> None:
    said = train("--init", "none", "--epochs", "1", "--space", "digits-mbconv", data=cifar)
    assert "first weights" not in said
    assert read_config(tmp_path / "run" / "run.toml").train.init == "none"


# -- files that are no weights --------------------------------------------------------------------


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def cut(path: Path) -> None:
    write_weights(path)
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda path: torch.save({"schema": "weights/1", "x": Trap(path.parent / "sprung")}, path),
            "tensors",
        ),
        (cut, "damaged, or more than tensors in it"),
        (
            lambda path: torch.save({"schema": "weights/0"}, path),
            "schema 'weights/0', but this version reads",
        ),
        (lambda path: torch.save(torch.nn.Linear(2, 3), path), "more than tensors in it"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(2000)), "damaged"),
        (lambda path: path.mkdir(), "a folder; give the file"),
        (lambda path: None, "no such file or folder (train.init)"),
    ],
    ids=["code", "truncated", "schema", "module", "noise", "folder", "missing"],
)
def test_files_that_are_no_weights(
    train: Train, tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    line = train("--init", path, code=2)
    assert line.startswith(f"nas: {path}: ")
    assert message in line
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "run" / "supernet").exists()


def test_a_named_space_does_not_make_a_file_weights(train: Train, tmp_path: Path) -> None:
    cut(path := tmp_path / "weights.pt")
    assert "damaged" in train("--init", path, "--space", "digits-mbconv", code=2)
    assert not (tmp_path / "run" / "supernet").exists()


def test_what_is_not_shipped(train: Train, tmp_path: Path) -> None:
    said = train("--init", "shipped:mine", code=2)
    assert re.search("no checkpoint 'mine' is shipped; known: .*cifar-mbconv", said)
    assert not (tmp_path / "run").exists()
