"""What a training does with the time that there is: from the measured seconds of real steps, how many of them
and of which kind.

Where a training as configured would not see every image often enough, it is made cheaper step by step, in
`simplifications`, until it does.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from hw_profiles.errors import TrilobitError
from supernet.data.kinds import SIZES, Reads, examples_called
from supernet.families.family import Family
from supernet.train.config import TrainConfig
from supernet.train.plan import Costs, Plan, mean_cost, plan_steps
from supernet.train.sampling import ALONE, resolution_options
from supernet.train.schedule import resolution_limit

ENOUGH_EPOCHS = 12  # below, a simpler training on more images is worth more
FEWEST_STEPS = 10
EARLY, SMALL_UNTIL = 0.3, 0.6  # shares of the schedule for the largest alone, and for small images

# changes of settings, share of the schedule -> seconds a step
Measure = Callable[[Mapping[str, Any], float], float]
PAYS = 0.95  # of the time in fp32, at most, that half precision must take to be used


def make_plan(
    family: Family,
    config: TrainConfig,
    steps_per_epoch: int,
    measure: Measure,
    elapsed: Callable[[], float],
) -> Plan:
    """Return a plan for the time of `config.budget`, of which `elapsed()` seconds are over.

    Args:
        measure: takes the seconds of a step at a share of the schedule with some settings changed.

    Raises:
        TrilobitError: there is time for less than `FEWEST_STEPS` steps.
    """
    numbers = {"amp": "bf16"} if half_pays(config, measure) else {}
    plan: Plan | None = None
    for simpler in simplifications(family, config):
        changes = {**numbers, **simpler}
        ends = segment_ends(family, replace(config, **changes))
        stretches = zip((0.0, *ends[:-1]), ends, strict=True)
        costs: Costs = tuple((end, measure(changes, (begin + end) / 2)) for begin, end in stretches)
        spent_s = elapsed()
        steps = plan_steps(costs, config.budget_s, spent_s)
        plan = Plan(steps, config.budget_s, costs, spent_s, changes)
        if steps >= ENOUGH_EPOCHS * steps_per_epoch:
            break
    assert plan is not None
    if plan.steps < FEWEST_STEPS:
        raise TrilobitError(
            f"train.budget of {config.budget}: {plan.began_s:.0f} s of it went into finding out that a step "
            f"takes {mean_cost(plan.costs):.2g} s here, and {plan.steps} steps are left; give more time, or "
            "a smaller train.batch_size"
        )
    return plan


def half_pays(config: TrainConfig, measure: Measure) -> bool:
    """Return whether a step on this processor is faster in bf16, where that is left open: it is for dense
    convolutions where the processor multiplies bf16, by half, and takes twice as long for depthwise ones.
    """
    if config.amp != "auto" or config.device == "cuda" or torch.cuda.is_available():
        return False
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    return measure({"amp": "bf16"}, 0.9) < PAYS * measure({"amp": "off"}, 0.9)


def simplifications(family: Family, config: TrainConfig) -> Iterator[Mapping[str, Any]]:
    """Yield changes of settings, each the ones before and one more: first none."""
    changes: dict[str, Any] = {}
    yield dict(changes)
    several = config.schedule == "sandwich" or (
        config.schedule == "alternating" and config.random_subnets > 1
    )
    if several:
        changes |= {"schedule": "alternating", "random_subnets": 1}
        yield dict(changes)
    if config.schedule in ("sandwich", "alternating") and config.alone < EARLY:
        changes |= {"alone": EARLY}
        yield dict(changes)
    sizes = resolution_options(family)
    small = min(size for size in sizes if 2 * size >= sizes[-1])
    if small < sizes[-1] and not config.first_resolution:
        changes |= {"first_resolution": small, "full_resolution_at": SMALL_UNTIL}
        yield dict(changes)


def segment_ends(family: Family, config: TrainConfig) -> tuple[float, ...]:
    """Return the shares of the schedule at which the kind of step changes, ascending; the last is 1."""
    ends = {config.alone} if config.schedule in ("sandwich", "alternating") else set()
    if config.schedule == "shrinking":
        ends = {config.alone, ALONE}
    if config.first_resolution:
        sizes, first = resolution_options(family), config.first_resolution
        climbed = {resolution_limit(sizes, first, 1.0, share / 1000) for share in range(1000)}
        count = len(climbed | {sizes[-1]}) - 1
        ends |= {config.full_resolution_at * k / count for k in range(1, count + 1)} if count else set()
    return (*sorted(end for end in ends if 0 < end < 1), 1.0)


def described(plan: Plan, config: TrainConfig, steps_per_epoch: int, reads: Reads) -> Iterator[str]:
    """Yield what a budget is used for, and what is left out for it, a line each.

    Args:
        reads: what networks read.
    """
    examples = examples_called(reads)
    times = sorted(cost for _, cost in plan.costs)
    each = f"{times[0]:.2g} s" if times[0] == times[-1] else f"{times[0]:.2g} to {times[-1]:.2g} s"
    yield (
        f"in {config.budget}: about {plan.steps:,} steps, {plan.steps / steps_per_epoch:.1f} passes over the "
        f"{examples}, {each} a step; {plan.began_s:.0f} s went into measuring them, and the number is "
        "corrected as training goes on"
    )
    if "amp" in plan.changes:
        yield "activations in bf16, in which a step is faster here"
    yield f"left out for that: {'; '.join(_left_out(plan.changes, reads)) or 'nothing'}"


def _left_out(changes: Mapping[str, Any], reads: Reads) -> Iterator[str]:
    if "random_subnets" in changes:
        yield "more than one subnet a step besides the largest"
    if "alone" in changes:
        yield f"any other than the largest in the first {changes['alone']:.0%}"
    if "first_resolution" in changes:
        yield (
            f"{examples_called(reads)} above {changes['first_resolution']} {SIZES[reads]} at first, all of "
            f"them up to {changes['full_resolution_at']:.0%}"
        )
