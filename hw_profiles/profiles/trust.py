"""How far a profile is to be trusted: one verdict, why, and what would make it better."""

from dataclasses import dataclass
from typing import Literal

from hw_profiles.profiles.profile import DeviceProfile

# From which share on it is no longer good, and no longer fair.
PREDICTED = (0.25, 0.75)  # of the units: predicted, not measured or with an unreliable number
DISTURBED = (0.1, 0.5)  # of the measured units: without enough quiet windows
ERROR = (0.03, 0.08)  # mean error on whole networks that the calibration has not seen
LEVELS: tuple[Literal["good", "fair", "poor"], ...] = ("good", "fair", "poor")


@dataclass(frozen=True)
class Reason:
    """Something that a verdict rests on.

    Attributes:
        level: index into `LEVELS` that it allows at best.
        why: in words.
        remedy: what to do about it; empty where there is nothing to do.
    """

    level: int
    why: str
    remedy: str = ""


@dataclass(frozen=True)
class Trust:
    """A verdict; the worst reason decides."""

    reasons: tuple[Reason, ...]

    @property
    def level(self) -> Literal["good", "fair", "poor"]:
        """Return how far the profile is to be trusted."""
        return LEVELS[max((reason.level for reason in self.reasons), default=0)]

    def __str__(self) -> str:
        """Return `trust: poor, because ...; what to do`."""
        decisive = [reason for reason in self.reasons if LEVELS[reason.level] == self.level]
        line = f"trust: {self.level}, because {' and '.join(reason.why for reason in decisive)}"
        remedies = dict.fromkeys(reason.remedy for reason in decisive if reason.level and reason.remedy)
        return "; ".join([line, *remedies])


def trust(profile: DeviceProfile) -> Trust:
    """Return the verdict on a profile of measured times."""
    reasons = (_coverage(profile), _quiet(profile), _error(profile))
    return Trust(tuple(reason for reason in reasons if reason is not None))


def _graded(share: float, limits: tuple[float, float]) -> int:
    return sum(share > limit for limit in limits)


def _coverage(profile: DeviceProfile) -> Reason | None:
    """Return how many units are measured."""
    units = {*profile.table, *profile.estimates} - set(profile.unsupported())
    unreliable = sum(profile.unreliable(layer) is not None for layer in units)
    measured = sum(layer in profile.table for layer in units) - unreliable
    if not units or measured == len(units):
        return None
    level = _graded(1 - measured / len(units), PREDICTED)
    why = f"{measured:,} of {len(units):,} rows are measured"
    if unreliable:
        why += f", {unreliable:,} numbers are unreliable"
    if 2 * unreliable > len(units) - measured:
        return Reason(level, why, "measure again when less runs on this machine (`nas profile`)")
    return Reason(level, why, "measure more of them: a longer --budget, or none, and --share 100%")


def _quiet(profile: DeviceProfile) -> Reason | None:
    """Return how many rows have their quiet windows."""
    rows = [row for row in profile.table.values() if row.samples_s]
    disturbed = sum(row.quiet_share < 1 for row in rows)
    if not disturbed:
        return None
    why = f"{disturbed:,} of {len(rows):,} rows were measured without enough quiet windows"
    loads = [row.load for row in rows if row.load is not None]
    if loads:
        why += f" (load up to {max(loads):.0f})"
    remedy = "run `nas profile` again when the load is lower, or let it wait longer (measure.waiting_s)"
    return Reason(_graded(disturbed / len(rows), DISTURBED), why, remedy)


def _error(profile: DeviceProfile) -> Reason:
    """Return how far off whole networks are."""
    if profile.calibration is None:
        return Reason(2, "no whole network was measured to calibrate it", "give it more time (--budget)")
    error = profile.calibration.held_out_error()
    if not error["n"]:
        remedy = "check it with `nas profile --validate 10`"
        return Reason(1, "no network was held out to test it", remedy)
    why = f"whole networks that it had not seen are predicted with a mean error of {error['mape']:.1%}"
    return Reason(_graded(error["mape"], ERROR), why, "measure more units, or again when the load is lower")
