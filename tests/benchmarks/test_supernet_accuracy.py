"""What the benchmark of supernets compares subnets with: the same architecture trained alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supernet.families.family import load_family
from supernet.train.config import TrainConfig
from supernet.train.sampling import step_archs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_training_alone_is_of_that_architecture_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from supernet_accuracy import Alone

    family, rng = load_family("digits-mbconv", in_channels=1, classes=10), np.random.default_rng(0)
    candidate = family.space().candidate(family.space().sample(1, rng=rng)[0])
    alone: Any = Alone(family, candidate)
    config = TrainConfig(schedule="largest")
    assert step_archs(alone, config, 0, 0.0, rng=rng) == [family.arch(candidate)]
    assert family.arch(candidate) != family.arch(family.extreme("largest"))
