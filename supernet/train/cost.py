"""What a training took, of which its checkpoint says how many steps and seconds: images and operations per
second.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hw_profiles.graph.counts import macs
from supernet.families.family import Family
from supernet.train.config import TrainConfig
from supernet.train.plan import Plan, read_plan
from supernet.train.sampling import step_archs

SAMPLED_STEPS = 400  # whose subnets are counted
OPERATIONS = 2 * 3  # of a multiply-add, forward and backward

State = Mapping[str, Any]


def plan_of(state: State) -> Plan:
    """Return the steps of a training that is over."""
    return read_plan(state["plan"]) if "plan" in state else Plan(int(state["steps"]))


def as_trained(config: TrainConfig, state: State) -> TrainConfig:
    """Return the configuration with what a budget of time decided."""
    return replace(config, **plan_of(state).changes)


def forward_macs(family: Family, config: TrainConfig, state: State, *, most: int = SAMPLED_STEPS) -> float:
    """Return the multiply-adds of a step's forward passes for one image: the mean over all steps, or over so
    many of them, evenly spread.
    """
    plan, config = plan_of(state), as_trained(config, state)
    chosen = np.unique(np.linspace(0, plan.total - 1, min(most, plan.total)).round().astype(int))
    return float(np.mean([_step_macs(family, config, plan, int(k), int(state["seed"])) for k in chosen]))


def _step_macs(family: Family, config: TrainConfig, plan: Plan, step: int, seed: int) -> int:
    archs = step_archs(family, config, step, plan.position(step) / plan.steps, seed=seed)
    return sum(macs(layer) for arch in archs for layer in arch.workload.layers)


def step_images(config: TrainConfig, state: State, examples: int) -> int:
    """Return the images that a step saw, over all processes; there were so many `examples`."""
    return min(config.batch_size * int(state["config"]["accumulate"]), examples)


def images_per_s(config: TrainConfig, state: State, examples: int) -> float | None:
    """Return the images that steps saw per second; None where the seconds were not recorded. What a budget
    measured before the first step does not count.
    """
    seconds = float(state.get("seconds", 0.0)) - plan_of(state).began_s
    steps = int(state["steps"])
    return steps * step_images(config, state, examples) / seconds if steps and seconds > 0 else None
