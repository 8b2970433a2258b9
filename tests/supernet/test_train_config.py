"""A configuration that cannot train is refused by name, with what is allowed."""

import math
from dataclasses import fields
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from supernet.train.config import TrainConfig
from supernet.train.loop import HOST_ONLY


def test_checkpoints_may_wait_for_the_end() -> None:
    assert TrainConfig(checkpoint_s=math.inf).checkpoint_s == math.inf


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("optimiser", "adamw, sgd, muon"),
        ("schedule", "sandwich, alternating, shrinking, largest"),
        ("decay", "cosine, linear"),
        ("initial", "random, identity"),
        ("device", "auto, cpu, cuda"),
        ("amp", "auto, off, bf16, fp16"),
    ],
)
def test_must_be_a_known_choice(name: str, known: str) -> None:
    with pytest.raises(TrilobitError, match=f"train.{name} must be one of {known}, got 'x'"):
        TrainConfig(**{name: "x"})


def test_randaugment_has_a_strongest() -> None:
    assert TrainConfig(randaugment=30).randaugment == 30
    with pytest.raises(TrilobitError, match=r"train.randaugment must be a whole number from 0 to 30, got 31"):
        TrainConfig(randaugment=31)


def test_no_epochs_need_weights() -> None:
    any_init: dict[str, Any] = {"init": "weights.pt"}
    assert TrainConfig(epochs=0, **any_init).epochs == 0
    with pytest.raises(TrilobitError, match=r"train.epochs must be above 0, got 0; give some"):
        TrainConfig(epochs=0)


def test_settings_of_the_host_exist() -> None:
    assert set(HOST_ONLY) <= {field.name for field in fields(TrainConfig)}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"alternate": True}, r"train\.alternate needs train\.flip = true"),
        ({"schedule": "alternating", "random_subnets": 0}, "needs train.random_subnets of 1 or more, got 0"),
        ({"budget": "soon"}, "train.budget: not a time: 'soon'; write for example 30s, 2m or 1h"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(TrilobitError, match=why):
        TrainConfig(**settings)
