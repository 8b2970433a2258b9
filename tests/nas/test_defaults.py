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
SHIPPED = {"init": "shipped:cifar-mbconv", "epochs": 0}
CHANGED = {"pad": 4, "flip": True}
Ship = Callable[[], Path]


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of shipped supernets."""
    monkeypatch.setattr(supernet.zoo, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture
def ship(zoo: Path) -> Ship:
    def write() -> Path:
        path = zoo / ZOO["cifar-mbconv"]
        net = load_family("cifar-mbconv", in_channels=3, classes=10).supernet(rng=np.random.default_rng(0))
        save_weights(path, Weights(net.state_dict(), space="cifar-mbconv"))
        return path

    return write


def test_cifar_starts_from_the_shipped_supernet(ship: Ship) -> None:
    ship()
    filled, note = with_defaults(CIFAR)
    assert filled == {**CIFAR, "space": {"name": "cifar-mbconv"}, "train": {**SHIPPED, **CHANGED}}
    assert note == (
        "where nothing was said: space cifar-mbconv, "
        "the shipped supernet as it is (--init none trains from scratch), train.pad 4, train.flip True"
    )
    train = parse_config(filled, origin="x").train
    assert (train.epochs, train.init) == (0, "shipped:cifar-mbconv")


@pytest.mark.parametrize(
    ("said", "space", "train"),
    [
        ({"space": {"name": "digits-mbconv"}}, "digits-mbconv", {}),
        ({"space": {"formats": ["int8"]}}, "cifar-mbconv", SHIPPED),
        ({"space": {"name": "cifar-mbconv"}}, "cifar-mbconv", SHIPPED),
        ({"train": {"init": "none"}}, "cifar-mbconv", {"init": "none"}),
        ({"train": {"epochs": 3}}, "cifar-mbconv", {"epochs": 3}),
        ({"train": {"learning_rate": 0.1}}, "cifar-mbconv", {"learning_rate": 0.1}),
        ({"train": {"threads": 2}}, "cifar-mbconv", {"threads": 2, **SHIPPED}),
        ({"train": {"flip": False}}, "cifar-mbconv", {"flip": False}),
        ({"seed": 3}, "cifar-mbconv", SHIPPED),
    ],
)
def test_what_is_said_wins(ship: Ship, said: dict[str, Any], space: str, train: dict[str, Any]) -> None:
    ship()
    filled, _ = with_defaults({**CIFAR, **said})
    assert (filled["space"]["name"], filled["train"]) == (space, {**CHANGED, **train})
    parse_config(filled, origin="x")


@pytest.mark.parametrize("source", [None, "digits", "imagefolder:photos.zip"])
def test_other_data_keeps_the_defaults(ship: Ship, source: str | None) -> None:
    ship()
    document = {} if source is None else {"data": {"source": source}}
    assert with_defaults(document) == (document, "")


def test_what_is_not_there_is_not_started_from(zoo: Path) -> None:
    filled, note = with_defaults(CIFAR)
    assert filled == {**CIFAR, "space": {"name": "cifar-mbconv"}, "train": CHANGED}
    assert note == "where nothing was said: space cifar-mbconv, train.pad 4, train.flip True"


def test_the_checkpoint_decides_the_space(ship: Ship) -> None:
    path = str(ship())
    document = {"data": {"source": "imagefolder:photos.zip"}, "train": {"init": path}}
    filled, note = with_defaults(document)
    assert filled == {**document, "space": {"name": "cifar-mbconv"}}
    assert note == "where nothing was said: space cifar-mbconv"
    said = {**document, "space": {"name": "digits-mbconv"}}
    assert with_defaults(said) == (said, "")
    with pytest.raises(TrilobitError, match="no such checkpoint"):
        with_defaults({"train": {"init": f"{path}x"}})


@pytest.mark.parametrize("section", ["data", "train", "space"])
def test_what_is_no_configuration_is_left_to_its_reader(section: str) -> None:
    document = {**CIFAR, section: 3}
    assert with_defaults(document) == (document, "")


def test_the_table_names_what_there_is() -> None:
    for known in BY_DATA.values():
        assert known.space in FAMILIES
        assert known.shipped in ZOO
    assert RunConfig().data.source.partition(":")[0] not in BY_DATA  # the default run needs no table


@pytest.mark.parametrize(
    ("width", "height", "option", "space"),
    [
        (28, 28, "", None),  # the usual one
        (8, 8, "", None),
        (32, 32, "", "cifar-mbconv"),
        (84, 200, "", "cifar-mbconv"),
        (640, 480, "", "ofa-mbv3"),
        (640, 480, "?size=32", "cifar-mbconv"),
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
