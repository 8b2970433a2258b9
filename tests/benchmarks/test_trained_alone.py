"""One architecture by itself, by the recipe of a supernet: the same network, weights of its shapes only."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from supernet.families.family import load_family
from supernet.train.config import TrainConfig
from supernet.train.sampling import resolution_options, step_archs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import trained_alone

    return trained_alone


@pytest.mark.parametrize("space", ["digits-mbconv", "digits-staged"])
def test_what_is_left_of_a_space_is_one_architecture(alone: Any, space: str) -> None:
    family, rng = load_family(space, in_channels=1, classes=10), np.random.default_rng(0)
    candidate = family.space().candidate(family.space().sample(1, rng=rng)[0])
    only = alone.Alone.of(family, candidate)
    largest = only.extreme("largest")
    assert only.arch(largest).workload == family.arch(candidate).workload
    extracted = family.extract(family.supernet(rng=rng), candidate)
    counts = [sum(p.numel() for p in net.parameters()) for net in (only.supernet(rng=rng), extracted)]
    assert counts[0] == counts[1]
    sizes = [size for size in resolution_options(family) if size <= family.resolution(candidate)]
    assert list(resolution_options(only)) == sizes


def test_it_is_trained_alone_and_begins_with_small_images(alone: Any) -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    only = alone.Alone.of(family, family.extreme("largest"))
    config = TrainConfig(schedule="largest", first_resolution=min(resolution_options(family)))
    (early,), (late,) = (step_archs(only, config, 0, done, seed=0) for done in (0.0, 1.0))
    assert late.workload == only.arch(only.extreme("largest")).workload
    assert early.resolution < late.resolution


def test_it_has_the_passes_and_the_settings_that_a_budget_gave(
    alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(budget="1h", epochs=36, schedule="alternating", random_subnets=1, evaluate_every=2)
    run: Any = SimpleNamespace(
        config=SimpleNamespace(train=config),
        checkpoint_path=Path("last.pt"),
        family=load_family("digits-mbconv", in_channels=1, classes=10),
        task=SimpleNamespace(train=range(640)),
    )
    changes = {"amp": "bf16", "alone": 0.3, "first_resolution": 20, "random_subnets": 1}
    state = {"steps": 74, "plan": {"changes": changes}}  # of 10 steps each
    monkeypatch.setattr(alone, "load_checkpoint", lambda *_, **__: state)
    found = alone.recipe(run)
    assert (found.epochs, found.budget, found.schedule, found.evaluate_every) == (7, "", "largest", 0)
    assert (found.amp, found.first_resolution, found.alone) == ("bf16", 20, 0.0)


def test_weights_that_are_used_as_they_are_have_no_recipe(alone: Any) -> None:
    train = TrainConfig(epochs=0, init="shipped:cifar-mbconv")
    run: Any = SimpleNamespace(config=SimpleNamespace(train=train), folder=Path("runs/own"))
    with pytest.raises(TrilobitError, match="runs/own: uses the weights of shipped:cifar-mbconv as they are"):
        alone.recipe(run)
