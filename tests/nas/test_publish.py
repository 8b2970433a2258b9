"""What is shipped of a training: small, usable, and described by what was done."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import cpu_model
from nas.cli.main import main
from nas.export.publish import POINTS, passes, publish
from nas.export.supernet_card import COLUMNS, supernet_card, training_parts
from nas.run.config import RunConfig
from nas.run.config_file import parse_config
from nas.run.reporting import QUIET
from nas.run.run import Run, find_run
from supernet.train.checkpoint import Weights, load_checkpoint, load_weights
from supernet.train.cost import as_trained
from supernet.train.plan import Plan
from supernet.zoo import shipped

CLASSES = ("ant", "bee", "cow")
CONFIG = """
[train]
epochs = 2
batch_size = 32
random_subnets = 0
checkpoint_s = 0.0
evaluate_every = 1
learning_rate = 0.003
"""


@pytest.fixture(scope="module")
def run(
    profile_file: Path, write_images: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Four steps long."""
    folder = tmp_path_factory.mktemp("shipping")
    (folder / "mine.toml").write_text(CONFIG)
    data = f"imagefolder:{write_images(folder / 'noise', CLASSES, each=36)}"
    words = ["train", folder / "mine.toml", "--device", f"recorded:{profile_file}", "--data", data]
    assert main([*map(str, words), "--seed", "3", "-o", str(folder / "run")]) == 0
    return find_run(folder / "run")


@pytest.fixture(scope="module")
def path(run: Run) -> Path:
    path = run.folder.parent / "shipped" / "noise.pt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("nas.export.representatives"), "DRAWN", 300)
        patch.setattr(import_module("nas.export.representatives"), "CONTENDERS", 2)
        publish(run, path, QUIET, random=2, sizes=(200_000.0,))
    return path


@pytest.fixture(scope="module")
def weights(path: Path) -> Weights:
    return load_weights(path)


@pytest.mark.slow
def test_it_is_half_the_weights_and_nothing_else(run: Run, path: Path, weights: Weights) -> None:
    expected = load_weights(run.checkpoint_path).tensors
    assert weights.tensors.keys() == expected.keys()
    for name, tensor in weights.tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=2**-10, atol=1e-7)
    assert path.stat().st_size < run.checkpoint_path.stat().st_size / 3


def test_it_says_how_it_was_made(run: Run, weights: Weights) -> None:
    known = weights.metadata
    state = load_checkpoint(run.checkpoint_path, fingerprint=run.family.space().fingerprint)
    assert (weights.space, weights.classes) == ("digits-mbconv", CLASSES)
    assert (known["seed"], known["epochs"]) == (3, 2)
    assert known["hours"] == pytest.approx(state["seconds"] / 3600)
    assert known["data"]["fingerprint"] == weights.data == run.task.fingerprint
    assert known["data"]["mean"] == list(run.task.mean)
    curve = known["curve"]
    assert len(curve) == min(POINTS, len(state["losses"]))
    assert curve[-1] == [2.0, pytest.approx(float(state["losses"][-1]))]
    assert [row[0] for row in known["watched"]] == [1.0, 2.0]


def test_its_recipe_is_the_training(run: Run, weights: Weights) -> None:
    assert weights.metadata["command"] == "nas train recipe.toml --data imagefolder:PATH -o RUN"
    config = parse_config(tomllib.loads(weights.metadata["recipe"]), origin="recipe.toml")
    assert (config.seed, config.space, config.train) == (3, RunConfig().space, run.config.train)


def test_accuracies_are_of_both_ends_and_of_random_networks(weights: Weights) -> None:
    rows = weights.metadata["accuracies"]
    assert [row["network"] for row in rows] == ["largest", "smallest", "about 0.2", "random 0", "random 1"]
    assert all(rows[1]["macs"] <= row["macs"] <= rows[0]["macs"] for row in rows)
    assert 180_000 <= rows[2]["macs"] <= 220_000
    assert all(0 <= row[column.name] <= 1 for row in rows for column in COLUMNS)


def test_it_says_what_the_training_took(run: Run, weights: Weights, path: Path) -> None:
    known = weights.metadata
    assert (known["steps"], known["threads"], known["earlier"], known["quantized"]) == (4, 1, [], {})
    images = 4 * 32 / (known["hours"] * 3600)
    assert known["images_per_s"] == pytest.approx(images)
    assert known["flops"] > 6 * images * known["accuracies"][1]["macs"]
    (machine,) = known["machines"]
    assert (machine["processor"], machine["threads"]) == (cpu_model(), 1)
    assert "assumed" not in machine
    assert (
        f"| 1 | 2 | 4 | {known['hours']:.2f} | {known['hours']:.2f} |" in path.with_suffix(".md").read_text()
    )


def test_a_card_of_two_trainings_goes_from_one_to_the_next(path: Path, weights: Weights) -> None:
    """A recipe names weights of its own machine; others have those of the training before."""
    second = {
        "recipe": 'init = "/mine/last.pt"\nseed = 3\n',
        "machines": [{"processor": "Z80", "threads": 1}],
    }
    metadata = {**weights.metadata, "earlier": training_parts(weights.metadata), **second}
    card = supernet_card(replace(weights, metadata=metadata), path)
    for number in (1, 2):
        assert f"nas train {number}-recipe.toml --data imagefolder:PATH -o RUN{number}\n" in card
    assert '\ninit = "RUN1/supernet/last.pt"\nseed = 3\n' in card
    assert "Z80, 1 thread |" in card


def test_the_card_says_the_same(path: Path, weights: Weights) -> None:
    card, known = path.with_suffix(".md").read_text(), weights.metadata
    assert card.startswith("# noise\n")
    assert f"```sh\n{known['command']}\n```" in card
    assert known["recipe"].strip() in card
    assert f"| Training time | {known['hours']:.2f} hours, 2 epochs |" in card
    for row in known["accuracies"]:
        cells = [row["network"], f"{row['macs'] / 1e6:.1f}", *(f"{100 * row[c.name]:.2f}" for c in COLUMNS)]
        assert f"| {' | '.join(cells)} |" in card
    assert len(re.findall(r"^\| \d\.\d \| \d\.\d{3} \|$", card, re.MULTILINE)) == len(known["curve"])
    for epochs, *shares in known["watched"]:
        assert f"| {epochs:.1f} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |" in card
    assert f"{path.stat().st_size:,} bytes" in card


def test_a_run_can_start_from_it(run: Run, path: Path, tmp_path: Path, profile_file: Path) -> None:
    words = [
        "train",
        "--data",
        run.config.data.source,
        "--device",
        f"recorded:{profile_file}",
        "--epochs",
        "0",
    ]
    assert main([*words, "--seed", "3", "--init", str(path), "-o", str(tmp_path / "run")]) == 0
    found = load_weights(tmp_path / "run" / "supernet" / "last.pt").tensors
    expected = load_weights(path).tensors
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_unfinished_training_is_not_shipped(run: Run, tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match="no such checkpoint"):
        publish(Run(tmp_path, run.config), tmp_path / "x.pt", QUIET)
    with pytest.raises(TrilobitError, match=r"that is the model card's name; end it in \.pt"):
        publish(run, tmp_path / "x.md", QUIET)
    assert not list(tmp_path.glob("x.*"))


def test_the_command_ships(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(import_module("nas.export.publish"), "COLUMNS", COLUMNS[:1])
    monkeypatch.setattr(publish, "__kwdefaults__", {"random": 0})
    words = ["train", "-o", str(run.folder), "--ship", str(tmp_path / "mine.pt")]
    assert main(words) == 0
    assert "model card: " in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {"mine.pt", "mine.md"}
    assert main([*words, "--ship-macs", "60%"]) == 2
    assert "--ship-macs '60%': write multiply-adds, such as 12M,26M" in capsys.readouterr().err


@pytest.mark.slow
def test_what_goes_on_from_it_keeps_its_history(
    run: Run, path: Path, weights: Weights, tmp_path: Path, profile_file: Path
) -> None:
    """From a compact checkpoint as from a run folder's own."""
    for init in (path, run.checkpoint_path):
        folder = tmp_path / init.stem
        words = ["train", "--data", run.config.data.source, "--device", f"recorded:{profile_file}"]
        words += ["--epochs", "1", "--seed", "3", "--init", str(init), "-o", str(folder)]
        assert main(words) == 0
        found = publish(find_run(folder), folder / "more.pt", QUIET, random=0)
        first, second = training_parts(found.metadata)
        assert first["curve"] == weights.metadata["curve"]
        assert (first["epochs"], second["epochs"], second["steps"]) == (2, 1, 1)
        card = (folder / "more.md").read_text()
        assert "| 2 | 1 | 1 |" in card
        assert f"{first['hours'] + second['hours']:.2f} hours, 2 + 1 epochs" in card
        assert card.count("## Curve of training") == 2
    words[words.index("--epochs") + 1], words[-1] = "0", str(tmp_path / "as-it-is")
    assert main(words) == 0
    same = publish(find_run(tmp_path / "as-it-is"), tmp_path / "same.pt", QUIET, random=0)
    (only,) = training_parts(same.metadata)  # weights used as they are: no training of their own
    assert (only["epochs"], only["curve"]) == (2, weights.metadata["curve"])
    assert "hours, 2 epochs |" in (tmp_path / "same.md").read_text()


def test_with_a_budget_it_says_what_there_was_time_for(run: Run) -> None:
    config = replace(run.config, train=replace(run.config.train, budget="2h"))
    budgeted: Any = SimpleNamespace(config=config, task=run.task)
    plan = Plan(20, 7200.0, ((1.0, 2.0),), 1.0, {"alone": 0.3, "amp": "bf16"})
    state = {"steps": 15, "config": {"accumulate": 1}, "plan": plan.document()}
    trained = as_trained(config.train, state)
    assert (trained.alone, trained.amp, trained.batch_size) == (0.3, "bf16", 32)
    per_epoch = len(run.task.train) // 32
    assert passes(budgeted, state) == round(15 / per_epoch, 1)


def test_a_card_says_how_a_budget_was_kept_and_what_followed(weights: Weights, path: Path) -> None:
    budget = {
        "time": "2h",
        "planned": 20,
        "corrections": 2,
        "slowness": [1.5, 1.25],
        "changes": {"alone": 0.3},
    }
    phase = {"epochs": 0.5, "batch_size": 64, "learning_rate": 5e-4}
    known = {**weights.metadata, "budget": budget, "quantized": phase}
    card = supernet_card(replace(weights, metadata=known), path)
    assert "had a budget of 2h: 20 steps were planned and 4 taken, after 2 corrections" in card
    assert "which was 1.25 to 1.50 x as slow as calibrated. It decided `alone = 0.3`." in card
    assert "Then a quantized phase of 0.5 passes (learning rate 0.0005)" in card
    assert f"--init {path.name} -o RUN" in card


def test_of_a_shipped_one_the_card_gives_its_name(weights: Weights) -> None:
    metadata = dict(weights.metadata)
    path = shipped("cifar-mbconv")
    assert "--init shipped:cifar-mbconv -o RUN" in supernet_card(replace(weights, metadata=metadata), path)
