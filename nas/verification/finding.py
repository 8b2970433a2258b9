"""What looking at an exported network again gives."""

from dataclasses import dataclass

from nas.search.objectives import objective
from nas.search.units import show

MOVED_POINTS = 0.5  # of accuracy; less is a tie that rounds the other way
MOVED_SHARE = 0.005  # of any other metric


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at again.

    Attributes:
        what: for example `latency`.
        then, now: as people read it.
        holds: False where it must hold and does not; None where it may move.
    """

    what: str
    then: str
    now: str
    holds: bool | None


def moved(
    what: str, then: float | None, now: float, *, examples: int, of: int, metric: str = "accuracy"
) -> Finding:
    """Return a metric now beside then; nothing holds or fails where there is nothing to compare it with.

    Args:
        then, now: values of the metric.
        examples: how many were looked at now...
        of: ...and then.
    """
    same, shares = examples == of, objective(metric).unit == "fraction"

    def text(value: float) -> str:
        return f"{value:.2%}" if shares else show(objective(metric), value)

    allowed = MOVED_POINTS / 100 if shares else MOVED_SHARE * abs(then or 0.0)
    holds = abs(now - then) <= allowed if same and then is not None else None
    measured = text(now) if same else f"{text(now)} of {examples} other examples"
    return Finding(what, "not measured" if then is None else text(then), measured, holds)
