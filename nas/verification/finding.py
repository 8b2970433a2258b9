"""What looking at an exported network again gives."""

from dataclasses import dataclass

MOVED_POINTS = 0.5  # of accuracy; less is a tie that rounds the other way


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


def moved(what: str, then: float | None, now: float, *, images: int, of: int) -> Finding:
    """Return an accuracy now beside then; nothing holds or fails where there is nothing to compare it with.

    Args:
        then, now: shares of right labels.
        images: how many were looked at now...
        of: ...and then.
    """
    same = images == of
    holds = abs(now - then) * 100 <= MOVED_POINTS if same and then is not None else None
    measured = f"{now:.2%}" if same else f"{now:.2%} of {images} other images"
    return Finding(what, "not measured" if then is None else f"{then:.2%}", measured, holds)
