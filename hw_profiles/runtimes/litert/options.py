"""What can be chosen of LiteRT."""

from dataclasses import dataclass
from typing import Annotated, Literal

from hw_profiles.options import Range, check
from hw_profiles.runtimes.plugin import SECTION


@dataclass(frozen=True)
class LitertOptions:
    """What can be chosen of LiteRT.

    Attributes:
        provider: whose kernels compute: `XNNPACK`, which is its own choice, or those that are `builtin`.
        threads: threads of one inference.
    """

    provider: Literal["XNNPACK", "builtin"] = "XNNPACK"
    threads: Annotated[int, Range(1, 1_024)] = 1

    def __post_init__(self) -> None:
        check(self, SECTION)
