"""What can be chosen of a microcontroller that is not there."""

from dataclasses import dataclass

from hw_profiles.options import check
from hw_profiles.runtimes.plugin import SECTION


@dataclass(frozen=True)
class MicroOptions:
    """What is known of a microcontroller.

    Attributes:
        times: what says how long layers take there: a published table, a board's report as `layer,ms` lines
            in a .csv, or a profile; empty where nothing does.
    """

    times: str = ""

    def __post_init__(self) -> None:
        check(self, SECTION)
