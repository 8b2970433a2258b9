"""How many steps a training takes, and where in its schedule each of them is.

Everything that changes while a network trains (learning rate, resolution, which subnets) follows from the
position in the schedule. Without a budget that is the step. With one, the schedule is stretched or squeezed
while the training runs, so that it ends with the time: each leg of the way has a pace of its own.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

CORRECTIONS = 50  # times that the pace is corrected
MEMORY = 0.5  # share of what is believed of the machine that one leg leaves as it was
SPARE = 0.98  # share of the time that is planned: the last checkpoint takes some

Costs = tuple[tuple[float, float], ...]  # (share of the schedule up to which it holds, seconds a step)


@dataclass(frozen=True)
class Leg:
    """A stretch of one pace.

    Attributes:
        step: with which it begins.
        position: in the schedule, there.
        total: steps of the whole training, as it was seen there.
        spent_s: seconds that the training had taken.
        slowness: of the machine, by which times were longer than calibrated.
    """

    step: int
    position: float
    total: int
    spent_s: float
    slowness: float


@dataclass(frozen=True)
class Plan:
    """The steps of a training.

    Attributes:
        steps: of the schedule, as first planned.
        budget_s: seconds for the whole training; infinite without a budget.
        costs: of a step by share of the schedule, calibrated; empty without a budget.
        began_s: seconds that were over before the first step.
        changes: settings that the budget decided, by name.
        legs: in order; empty before the first correction.
    """

    steps: int
    budget_s: float = math.inf
    costs: Costs = ()
    began_s: float = 0.0
    changes: Mapping[str, Any] = field(default_factory=dict)
    legs: tuple[Leg, ...] = ()

    @property
    def total(self) -> int:
        """Steps of the whole training, as it looks now."""
        return self.legs[-1].total if self.legs else self.steps

    def position(self, step: int) -> float:
        """Return where in the schedule a step is, in 0 to `steps`: itself, as long as nothing was
        corrected.
        """
        legs = [leg for leg in self.legs if leg.step <= step]
        if not legs:
            return step
        leg = legs[-1]
        share = (step - leg.step) / max(1, leg.total - leg.step)
        return min(leg.position + share * (self.steps - leg.position), float(self.steps))

    def is_due(self, step: int) -> bool:
        """Whether the pace is to be corrected before this step."""
        return bool(self.costs) and 0 < step < self.total and step % max(1, self.steps // CORRECTIONS) == 0

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def read_plan(document: Mapping[str, Any]) -> Plan:
    """Return the plan that `Plan.document` gave."""
    costs = tuple((float(share), float(cost)) for share, cost in document["costs"])
    legs = tuple(Leg(**leg) for leg in document["legs"])
    return Plan(**{**document, "costs": costs, "legs": legs})


def mean_cost(costs: Costs, begin: float = 0.0) -> float:
    """Return the mean seconds of a step from the share `begin` of the schedule to its end."""
    total, low = 0.0, begin
    for share, cost in costs:
        total += cost * max(0.0, share - low)
        low = max(low, share)
    return total / (1 - begin) if begin < 1 else costs[-1][1]


def plan_steps(costs: Costs, budget_s: float, spent_s: float = 0.0) -> int:
    """Return how many steps there is time for."""
    return max(1, int((SPARE * budget_s - spent_s) / mean_cost(costs)))


def corrected(plan: Plan, step: int, spent_s: float) -> Plan:
    """Return the plan with the pace that ends with the budget, when `spent_s` seconds are over before `step`.

    What is left is divided among the steps that there will be time for if the machine is as slow, against the
    calibration, as it was in the last leg, half of it, and before, the other half.
    """
    last = plan.legs[-1] if plan.legs else Leg(0, 0.0, plan.steps, plan.began_s, 1.0)
    position = plan.position(step)
    expected_s = _seconds(plan, last.position, position) * (step - last.step) / (position - last.position)
    recent = max(1e-3, (spent_s - last.spent_s) / expected_s)
    slowness = math.exp(MEMORY * math.log(last.slowness) + (1 - MEMORY) * math.log(recent))
    cost = slowness * mean_cost(plan.costs, position / plan.steps)
    left = max(1, int((SPARE * plan.budget_s - spent_s) / cost))
    return replace(plan, legs=(*plan.legs, Leg(step, position, step + left, spent_s, slowness)))


def _seconds(plan: Plan, begin: float, end: float) -> float:
    """Return the calibrated seconds of a schedule of `plan.steps` steps between two positions."""
    shares = begin / plan.steps, end / plan.steps
    whole, rest = (mean_cost(plan.costs, share) * (1 - share) for share in shares)
    return (whole - rest) * plan.steps
