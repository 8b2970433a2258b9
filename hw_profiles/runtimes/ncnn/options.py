"""What can be chosen of ncnn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from hw_profiles.options import Range, check
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.plugin import SECTION

CPU = "CPU"


@dataclass(frozen=True)
class NcnnOptions:
    """What can be chosen of ncnn.

    Attributes:
        precision: in which real numbers are stored and computed. ncnn's own choice, where a processor has it,
            is f16, which is not what a file in fp32 says.
        threads: threads of one inference.
    """

    precision: Literal["f32", "f16", "bf16"] = "f32"
    threads: Annotated[int, Range(1, 1_024)] = 1

    def __post_init__(self) -> None:
        check(self, SECTION)

    @property
    def arrangement(self) -> str:
        """Where it runs, and the precision where that is not the usual one, such as `CPU f16`."""
        usual = NcnnOptions().precision
        return CPU if self.precision == usual else f"{CPU} {self.precision}"


def described(info: DeviceInfo) -> Mapping[str, Any]:
    """Return the options of a device that describes itself so."""
    _, *precision = info.provider.split()
    return {"threads": info.threads, **({"precision": precision[0]} if precision else {})}
