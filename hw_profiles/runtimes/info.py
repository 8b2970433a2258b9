"""What a device says of itself, as a profile keeps it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from hw_profiles.reference.integer_sums import IntegerSums

Figures = Literal["measured", "modelled", "published"]


@dataclass(frozen=True)
class DeviceInfo:
    """What was measured on.

    Attributes:
        name: file-name-safe, for example `ort-cpu-1t`; profiles are stored under it.
        cpu: processor model.
        engine, engine_version: for example onnxruntime 1.31.1; `analytical`, or `published table`.
        provider: execution provider or compiler target.
        threads: threads used by one inference.
        batch: images per inference; every time and energy is of a whole batch.
        energy: where joules come from, or why there are none.
        integer_sums: what its kernels for unsigned activations and signed weights do with sums that leave 16
            bits, found by running some; `unknown` in profiles from before that.
        figures: what its times and energies are: measured by somebody who had it, modelled, or published.
    """

    name: str
    cpu: str
    engine: str
    engine_version: str
    provider: str
    threads: int = 1
    batch: int = 1
    energy: str = "not measured"
    integer_sums: Literal["exact", "saturating", "unknown"] = "unknown"
    figures: Figures = "measured"

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or set(self.name) & set("/\\"):
            raise ValueError(f"a device's name is a file name, got {self.name!r}")

    @property
    def sums(self) -> IntegerSums:
        """What 8-bit weights are made for."""
        return IntegerSums(self.integer_sums)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a profile stores them."""
        return asdict(self)
