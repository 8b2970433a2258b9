"""What a training took is what its steps said."""

from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.graph.counts import macs
from supernet.families.family import load_family
from supernet.tasks.image_classification import ImageClassification
from supernet.train.checkpoint import load_checkpoint
from supernet.train.config import TrainConfig
from supernet.train.cost import as_trained, forward_macs, images_per_s, plan_of, step_images
from supernet.train.loop import train
from supernet.train.plan import Plan

CONFIG = TrainConfig(
    epochs=1, batch_size=32, schedule="alternating", random_subnets=1, alone=0.25, first_resolution=8
)


def test_multiply_adds_are_those_that_steps_counted(few_digits: ImageClassification, tmp_path: Path) -> None:
    family, config = load_family("digits-mbconv", in_channels=1, classes=10), replace(CONFIG, batch_size=8)
    steps = list(train(family, few_digits, config, tmp_path / "last.pt", seed=5))
    state = load_checkpoint(tmp_path / "last.pt", fingerprint=family.space().fingerprint)
    counted = sum(progress.macs for progress in steps) / sum(progress.images for progress in steps)
    assert forward_macs(family, config, state) == pytest.approx(counted)
    assert len({progress.macs for progress in steps}) > 2
    (machine,) = state["machines"]
    assert machine["threads"] == 1
    assert images_per_s(config, state, 48) == pytest.approx(48 / state["seconds"])


def test_some_steps_stand_for_all() -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    state = {"steps": 1_000, "seed": 0, "config": {"accumulate": 2}}
    largest = sum(map(macs, family.workload(family.extreme("largest")).layers))
    alone = replace(CONFIG, schedule="largest", first_resolution=0)
    assert forward_macs(family, alone, state, most=7) == largest
    assert step_images(CONFIG, state, 1_000) == 64
    assert step_images(CONFIG, state, 40) == 40


def test_what_a_budget_measured_does_not_count() -> None:
    plan = Plan(20, 100.0, ((1.0, 2.0),), 10.0, {"amp": "bf16"})
    state = {"steps": 5, "seconds": 60.0, "config": {"accumulate": 1}, "plan": plan.document()}
    assert plan_of(state) == plan
    assert as_trained(CONFIG, state).amp == "bf16"
    assert images_per_s(CONFIG, state, 1_000) == 5 * 32 / 50
    assert images_per_s(CONFIG, {"steps": 5, "config": {"accumulate": 1}}, 1_000) is None
