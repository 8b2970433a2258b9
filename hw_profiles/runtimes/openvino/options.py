"""What can be chosen of OpenVINO."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from hw_profiles.options import Range, check
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.plugin import SECTION

CPU = "CPU"


@dataclass(frozen=True)
class OpenVinoOptions:
    """What can be chosen of OpenVINO.

    Attributes:
        provider: what OpenVINO calls a device: `CPU`, `GPU`, `NPU`.
        precision: in which layers in real numbers are computed. OpenVINO's own choice on a processor that
            has it is bf16, which is not what a file in fp32 says.
        hint: what OpenVINO arranges its work for.
        threads: threads of one inference.
        batch: images of one inference.
    """

    provider: str = CPU
    precision: Literal["f32", "bf16", "f16"] = "f32"
    hint: Literal["latency", "throughput"] = "latency"
    threads: Annotated[int, Range(1, 1_024)] = 1
    batch: Annotated[int, Range(1, 65_536)] = 1

    def __post_init__(self) -> None:
        check(self, SECTION)

    @property
    def arrangement(self) -> str:
        """The first three in words, the usual ones left out, such as `CPU bf16 throughput`."""
        usual = OpenVinoOptions()
        chosen = [
            value for value in (self.precision, self.hint) if value not in (usual.precision, usual.hint)
        ]
        return " ".join((self.provider, *chosen))


def described(info: DeviceInfo) -> Mapping[str, Any]:
    """Return the options of a device that describes itself so."""
    provider, *chosen = info.provider.split()
    more = {"hint" if word in ("latency", "throughput") else "precision": word for word in chosen}
    return {"provider": provider, "threads": info.threads, "batch": info.batch, **more}
