"""What a device says of itself, as a profile keeps it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from hw_profiles.measure.host import instruction_set
from hw_profiles.reference.integer_sums import IntegerSums

Figures = Literal["measured", "modelled", "published", "reported", "none"]


@dataclass(frozen=True)
class BoardInfo:
    """A board that is reached from another machine, as it said of itself.

    Attributes:
        address: how it is reached; of several alike, all.
        system: operating system and its version.
        machine: instruction set.
        cores: that may be used.
        pinned: whether the fastest of them, the last of several alike, is measured on, or any.
        governor: what decides how fast that runs; None where nothing says so.
        max_frequency_hz: its highest frequency; None where nothing says so.
        versions: of Python and the packages that measured.
        instruction_set: the processor's best for int8 products, as far as its system says.
    """

    address: str
    system: str
    machine: str
    cores: int
    pinned: bool = True
    governor: str | None = None
    max_frequency_hz: int | None = None
    versions: str = ""
    instruction_set: str = "unknown"

    def __str__(self) -> str:
        speed = f"up to {self.max_frequency_hz / 1e9:.2f} GHz" if self.max_frequency_hz else ""
        governor = f"governor {self.governor}" if self.governor else ""
        cores = f"{'one' if self.pinned else 'any'} of {self.cores} cores"
        words = (self.address, f"{self.system} {self.machine}", cores, speed, governor, self.versions)
        return "; ".join(filter(None, words))


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
        figures: what its times and energies are: measured by somebody who had it, modelled, published,
            or reported in a file that its owner gave; `none` where there are none.
        board: where it was measured; None where that was the machine which ran Trilobit.
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
    board: BoardInfo | None = None

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or set(self.name) & set("/\\"):
            raise ValueError(f"a device's name is a file name, got {self.name!r}")

    @property
    def timeless(self) -> bool:
        """Whether nothing says what anything takes on it."""
        return self.figures == "none"

    @property
    def sums(self) -> IntegerSums:
        """What 8-bit weights are made for."""
        return IntegerSums(self.integer_sums)

    @property
    def instructions(self) -> str:
        """The best instruction set for int8 products of the processor that measures: of the board, or where
        there is none of this machine.
        """
        return instruction_set() if self.board is None else self.board.instruction_set

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a profile stores them, that of a board where it is one."""
        stored = asdict(self)
        return stored if self.board is not None else {k: v for k, v in stored.items() if k != "board"}
