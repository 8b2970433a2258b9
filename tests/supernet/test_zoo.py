"""What is shipped loads, fits its space, is small, and says how it was made."""

from pathlib import Path

import numpy as np
import pytest

import supernet.zoo
from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs
from nas.export.supernet_card import training_parts
from supernet.families.family import SIZES, load_family
from supernet.train.checkpoint import Weights, load_weights
from supernet.train.initial import start_from
from supernet.zoo import FOLDER, ZOO, is_shipped, shipped

LARGEST_BYTES = 12_000_000
SAID = ("Command", "Seed", "Training time", "Accuracy", "Curve")  # headings and rows of a model card


@pytest.fixture(params=sorted(filter(is_shipped, ZOO)))
def path(request: pytest.FixtureRequest) -> Path:
    return shipped(request.param)


@pytest.fixture
def weights(path: Path) -> Weights:
    return load_weights(path)


def test_it_fits_its_space(weights: Weights) -> None:
    family = load_family(weights.space, in_channels=3, classes=len(weights.classes))
    net = family.supernet(rng=np.random.default_rng(0))
    begun = start_from(net, weights, weights.classes, origin="shipped")
    assert (begun.renewed, begun.notes) == ((), ())


def test_it_is_small_and_says_how_it_was_made(path: Path, weights: Weights) -> None:
    assert path.stat().st_size <= LARGEST_BYTES
    assert {"command", "seed", "hours", "curve", "data", "accuracies", "versions"} <= set(weights.metadata)
    card = path.with_suffix(".md").read_text()
    for said in SAID:
        assert said in card
    trainings = training_parts(weights.metadata)
    for number, training in enumerate(trainings, 1):
        command = str(training["command"])
        if len(trainings) > 1:
            command = command.replace("recipe.toml", f"{number}-recipe.toml").replace(
                "-o RUN", f"-o RUN{number}"
            )
        assert command in card


def test_the_card_has_the_figures_of_the_checkpoint(path: Path, weights: Weights) -> None:
    card, known = path.with_suffix(".md").read_text(), weights.metadata
    assert card.startswith(f"# {path.stem}\n")
    assert f"{path.stat().st_size:,} bytes" in card
    assert f"`{known['data']['fingerprint']}`" in card
    assert weights.data == known["data"]["fingerprint"]
    cells = [
        [row["network"], f"{row['macs'] / 1e6:.1f}", *(f"{100 * row[way]:.2f}" for way in ("fp32", "int8"))]
        for row in known["accuracies"]
    ]
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    assert [row for row in cells if row not in [line[:4] for line in rows]] == []
    assert {"largest", "smallest"} < {row[0] for row in cells}
    assert f"--init shipped:{path.stem}" in card  # how to go on


def test_its_networks_have_the_sizes_that_it_says(weights: Weights) -> None:
    """The space has not changed since."""
    family = load_family(weights.space, in_channels=3, classes=len(weights.classes))
    sizes = {row["network"]: row["macs"] for row in weights.metadata["accuracies"]}
    for end in SIZES:
        assert sum(map(macs, family.workload(family.extreme(end)).layers)) == sizes[end]


def test_every_checkpoint_in_the_folder_is_shipped() -> None:
    """Those of the table whose training is not over are not there yet."""
    there = {file.name for file in FOLDER.glob("*.pt")}
    assert {ZOO[name] for name in ZOO if is_shipped(name)} == there != set()


def test_what_is_not_shipped_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_shipped("mine")
    with pytest.raises(TrilobitError, match=r"no checkpoint 'mine' is shipped; known: .*cifar-mbconv"):
        shipped("mine")
    monkeypatch.setattr(supernet.zoo, "FOLDER", tmp_path)
    for name in ZOO:
        with pytest.raises(TrilobitError, match=f"no checkpoint '{name}' is shipped; known: none"):
            shipped(name)
