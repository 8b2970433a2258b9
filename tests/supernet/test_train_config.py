"""A configuration that cannot train is refused by name, with what is allowed."""

import math
from dataclasses import fields
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from supernet.train.config import TrainConfig
from supernet.train.loop import HOST_ONLY

FLOATS = [field.name for field in fields(TrainConfig) if field.type in (float, "float")]


@pytest.mark.parametrize(
    "name", ["epochs", "batch_size", "accumulate", "learning_rate", "clip_norm", "threads"]
)
@pytest.mark.parametrize("value", [0, -1])
def test_must_be_above_0(name: str, value: float) -> None:
    with pytest.raises(TrilobitError, match=f"train.{name} must be above 0, got {value}"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", ["momentum", "warmup", "smoothing", "ema"])
@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_must_be_a_share(name: str, value: float) -> None:
    with pytest.raises(TrilobitError, match=f"train.{name} must be at least 0 and below 1, got {value}"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    "name",
    [
        "weight_decay",
        "random_subnets",
        "pad",
        "cutout",
        "mixup",
        "randaugment",
        "evaluate_every",
        "checkpoint_s",
    ],
)
def test_must_not_be_negative(name: str) -> None:
    with pytest.raises(TrilobitError, match=f"train.{name} must be at least 0, got -1"):
        TrainConfig(**{name: -1})


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_must_be_finite(name: str, value: float) -> None:
    if (name, value) == ("checkpoint_s", math.inf):
        assert TrainConfig(checkpoint_s=math.inf).checkpoint_s == math.inf  # only at the end
        return
    with pytest.raises(TrilobitError, match=f"train.{name} must be a finite number, got {value}"):
        TrainConfig(**{name: value})


def test_floats_are_found() -> None:
    assert {"learning_rate", "checkpoint_s"} < set(FLOATS)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("optimiser", "adamw, sgd"),
        ("schedule", "sandwich, shrinking, largest"),
        ("device", "auto, cpu, cuda"),
        ("amp", "auto, off, bf16, fp16"),
    ],
)
def test_must_be_a_known_choice(name: str, known: str) -> None:
    with pytest.raises(TrilobitError, match=f"train.{name} must be one of {known}, got 'x'"):
        TrainConfig(**{name: "x"})


def test_randaugment_has_a_strongest() -> None:
    assert TrainConfig(randaugment=30).randaugment == 30
    with pytest.raises(TrilobitError, match=r"train.randaugment must be at most 30, got 31"):
        TrainConfig(randaugment=31)


def test_no_epochs_need_weights() -> None:
    any_init: dict[str, Any] = {"init": "weights.pt"}
    assert TrainConfig(epochs=0, **any_init).epochs == 0
    with pytest.raises(TrilobitError, match=r"train.epochs must be above 0, got 0; give some"):
        TrainConfig(epochs=0)


def test_settings_of_the_host_exist() -> None:
    assert set(HOST_ONLY) <= {field.name for field in fields(TrainConfig)}
