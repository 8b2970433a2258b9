"""What can be chosen of LiteRT."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from hw_profiles.options import Range, check
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.plugin import SECTION


@dataclass(frozen=True)
class LitertOptions:
    """What can be chosen of LiteRT.

    Attributes:
        provider: whose kernels compute: `XNNPACK`, which is its own choice, or those that are `builtin`.
        threads: threads of one inference.
        files: what they are made for: to be `fast`, or `lean` where memory counts more, as on a
            microcontroller.
    """

    provider: Literal["XNNPACK", "builtin"] = "XNNPACK"
    threads: Annotated[int, Range(1, 1_024)] = 1
    files: Literal["fast", "lean"] = "fast"

    def __post_init__(self) -> None:
        check(self, SECTION)

    @property
    def lean(self) -> bool:
        """Whether memory counts more than time."""
        return self.files == "lean"

    @property
    def arrangement(self) -> str:
        """Whose kernels compute, and what files are made for, such as `XNNPACK lean`."""
        return f"{self.provider} lean" if self.lean else self.provider


def described(info: DeviceInfo) -> Mapping[str, Any]:
    """Return the options of a device that describes itself so."""
    provider, *more = info.provider.split()
    return {"provider": provider, "threads": info.threads, "files": more[0] if more else "fast"}
