"""What a run takes where nothing is said, and that whatever is said wins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import supernet.zoo
from hw_profiles.errors import TrilobitError
from nas.run.config import RunConfig
from nas.run.config_file import parse_config
from nas.run.defaults import BY_DATA, with_defaults
from supernet.families.family import FAMILIES, load_family
from supernet.train.checkpoint import Weights, save_weights
from supernet.zoo import ZOO

CIFAR = {"data": {"source": "cifar10:somewhere"}}
FUSED, MBCONV = ({"init": f"shipped:{name}", "epochs": 0} for name in ("cifar-pooled", "cifar-mbconv"))
CHANGED = {"pad": 4, "flip": True}
Ship = Callable[..., list[Path]]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of shipped supernets."""
    monkeypatch.setattr(supernet.zoo, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def ship(zoo: Path) -> Ship:
    """Ships supernets of random weights; all that there may be, where none is named."""

    def write(*names: str) -> list[Path]:
        paths = []
        for name in names or ZOO:
            net = load_family(name, in_channels=3, classes=10).supernet(rng=np.random.default_rng(0))
            paths.append(zoo / ZOO[name])
            save_weights(paths[-1], Weights(net.state_dict(), space=name))
        return paths

    return write


@pytest.mark.parametrize(
    ("names", "space"),
    [
        (("cifar-pooled", "cifar-mbconv"), "cifar-pooled"),
        (("cifar-pooled",), "cifar-pooled"),
        (("cifar-mbconv",), "cifar-mbconv"),
    ],
)
def test_cifar_starts_from_the_shipped_supernet(ship: Ship, names: tuple[str, ...], space: str) -> None:
    ship(*names)
    filled, note = with_defaults(CIFAR)
    shipped = {"init": f"shipped:{space}", "epochs": 0}
    assert filled == {**CIFAR, "space": {"name": space}, "train": {**shipped, **CHANGED}}
    assert note == (
        f"where nothing was said: space {space}, "
        "the shipped supernet as it is (--init none trains from scratch), train.pad 4, train.flip True"
    )
    train = parse_config(filled, origin="x").train
    assert (train.epochs, train.init) == (0, f"shipped:{space}")


@pytest.mark.parametrize(
    ("said", "space", "train"),
    [
        ({"space": {"name": "digits-mbconv"}}, "digits-mbconv", {}),
        ({"space": {"formats": ["int8"]}}, "cifar-pooled", FUSED),
        ({"space": {"name": "cifar-pooled"}}, "cifar-pooled", FUSED),
        ({"space": {"name": "cifar-mbconv"}}, "cifar-mbconv", MBCONV),
        ({"train": {"init": "none"}}, "cifar-pooled", {"init": "none"}),
        ({"train": {"epochs": 3}}, "cifar-pooled", {"epochs": 3}),
        ({"train": {"learning_rate": 0.1}}, "cifar-pooled", {"learning_rate": 0.1}),
        ({"train": {"threads": 2}}, "cifar-pooled", {"threads": 2, **FUSED}),
        ({"train": {"flip": False}}, "cifar-pooled", {"flip": False}),
        ({"seed": 3}, "cifar-pooled", FUSED),
    ],
)
def test_what_is_said_wins(ship: Ship, said: dict[str, Any], space: str, train: dict[str, Any]) -> None:
    ship()
    filled, _ = with_defaults({**CIFAR, **said})
    assert (filled["space"]["name"], filled["train"]) == (space, {**CHANGED, **train})
    parse_config(filled, origin="x")


def test_each_space_has_its_own_supernet(ship: Ship) -> None:
    ship("cifar-pooled")
    filled, note = with_defaults({**CIFAR, "space": {"name": "cifar-mbconv"}})
    assert filled["train"] == CHANGED
    assert "shipped" not in note


@pytest.mark.parametrize("source", [None, "digits", "imagefolder:photos.zip"])
def test_other_data_keeps_the_defaults(ship: Ship, source: str | None) -> None:
    ship()
    document = {} if source is None else {"data": {"source": source}}
    assert with_defaults(document) == (document, "")


def test_what_is_not_there_is_not_started_from(zoo: Path) -> None:
    filled, note = with_defaults(CIFAR)
    assert filled == {**CIFAR, "space": {"name": "cifar-pooled"}, "train": CHANGED}
    assert note == "where nothing was said: space cifar-pooled, train.pad 4, train.flip True"


def test_the_checkpoint_decides_the_space(ship: Ship) -> None:
    path = str(ship("cifar-mbconv")[0])
    document = {"data": {"source": "imagefolder:photos.zip"}, "train": {"init": path}}
    filled, note = with_defaults(document)
    assert filled == {**document, "space": {"name": "cifar-mbconv"}}
    assert note == "where nothing was said: space cifar-mbconv"
    said = {**document, "space": {"name": "digits-mbconv"}}
    assert with_defaults(said) == (said, "")
    with pytest.raises(TrilobitError, match="no such checkpoint"):
        with_defaults({"train": {"init": f"{path}x"}})


def test_weights_that_are_given_leave_nothing_to_random_ones(ship: Ship) -> None:
    ship()
    recipe = {"whitening": True, "initial": "identity", "warmup": 0.05}
    filled, note = with_defaults({"train": {**recipe, "init": "shipped:cifar-pooled"}})
    kept = {"init": "shipped:cifar-pooled", "whitening": False, "initial": "random", "warmup": 0.05}
    assert filled == {"space": {"name": "cifar-pooled"}, "train": kept}
    assert note == (
        "where nothing was said: space cifar-pooled, "
        "train.whitening and train.initial left out, for --init gives weights"
    )
    parse_config(filled, origin="x")
    assert with_defaults({"train": recipe}) == ({"train": recipe}, "")


@pytest.mark.parametrize("section", ["data", "train", "space"])
def test_what_is_no_configuration_is_left_to_its_reader(section: str) -> None:
    document = {**CIFAR, section: 3}
    assert with_defaults(document) == (document, "")


def test_the_table_names_what_there_is() -> None:
    for known in BY_DATA.values():
        assert known.space in known.supernets
        assert known.supernets.keys() <= FAMILIES.keys()
        assert {known.teacher, *known.supernets.values()} <= ZOO.keys()
    assert RunConfig().data.source.partition(":")[0] not in BY_DATA  # the default run needs no table


@pytest.mark.parametrize(
    ("width", "height", "option", "space"),
    [
        (28, 28, "", None),  # the usual one
        (8, 8, "", None),
        (32, 32, "", "cifar-pooled"),
        (84, 200, "", "cifar-pooled"),
        (640, 480, "", "ofa-mbv3"),
        (640, 480, "?size=32", "cifar-pooled"),
        (32, 32, "?size=224", "ofa-mbv3"),
    ],
)
def test_the_space_fits_the_images(
    tmp_path: Path, width: int, height: int, option: str, space: str | None
) -> None:
    folder = tmp_path / "images" / "train" / "ant"
    folder.mkdir(parents=True)
    Image.new("RGB", (width, height)).save(folder / "0.png")
    source = f"imagefolder:{tmp_path / 'images'}{option}"
    filled, note = with_defaults({"data": {"source": source}})
    assert filled.get("space", {}).get("name") == space
    assert ("for images of" in note) == (space is not None)
    chosen, _ = with_defaults({"data": {"source": source}, "space": {"name": "digits-mbconv"}})
    assert chosen["space"]["name"] == "digits-mbconv"
