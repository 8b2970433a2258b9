"""What single commands take beside the configuration of a run: the same kind of sections, with ranges."""

from dataclasses import dataclass
from typing import Annotated

from hw_profiles.options import OneOf, Option, Range, Written, check, options
from hw_profiles.registry import DEVICES
from nas.run.design_settings import DistillationConfig, Effort
from nas.run.tune_config import parse_shape
from supernet.imported.fixed_value import Number, parse_fixed


@dataclass(frozen=True)
class BenchSection:
    """Of `nas bench`.

    Attributes:
        threads: of one inference, one setting each.
        batch: images of one inference, one setting each; empty takes the file's own.
        seconds: of timing, for each setting.
        device: what runs the file; empty takes what it was exported for.
        inputs: an .npz file with an array for each input, which is what the file reads then; empty takes
            random numbers.
        prefill: of a decoder, positions of the prompt; None takes 128.
        decode: of a decoder, positions before the next one; None takes 511.
    """

    threads: Annotated[tuple[int, ...], Range(1, 1_024)] = (1,)
    batch: Annotated[tuple[int, ...], Range(1, 65_536)] = ()
    seconds: Annotated[float, Range(0, 86_400, above=True)] = 3.0
    device: Annotated[str, OneOf(DEVICES, "trilobit.devices", arguments=True)] = ""
    inputs: str = ""
    prefill: Annotated[int | None, Range(1, 1_048_576)] = None
    decode: Annotated[int | None, Range(0, 1_048_576)] = None

    def __post_init__(self) -> None:
        check(self, "bench")


@dataclass(frozen=True)
class InspectSection:
    """Of `nas inspect`.

    Attributes:
        shape: sizes of inputs with open dimensions, `INPUT=1x3x224x224`.
        fix: value of inputs that always have the same, `INPUT=NUMBER`.
        device: what formats and time are of.
        inputs: an .npz file with an example: an array for each input, as the model reads it; empty makes one
            up.
    """

    shape: Annotated[tuple[str, ...], Written(parse_shape, "such as image=1x3x224x224")] = ()
    fix: Annotated[tuple[str, ...], Written(parse_fixed, "such as sr=16000")] = ()
    device: Annotated[str, OneOf(DEVICES, "trilobit.devices", arguments=True)] = "ort"
    inputs: str = ""

    def __post_init__(self) -> None:
        check(self, "inspect")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Sizes by input."""
        return dict(map(parse_shape, self.shape))

    @property
    def fixed(self) -> dict[str, Number]:
        """Value by input, of those that are said to have only one."""
        return {name: value for name, value in map(parse_fixed, self.fix) if name}


@dataclass(frozen=True)
class ValidationSection:
    """Of `nas profile --validate`.

    Attributes:
        networks: new random ones of each kind that are measured; None measures none.
    """

    networks: Annotated[int | None, Range(1, 10_000)] = None

    def __post_init__(self) -> None:
        check(self, "validation")


def command_options() -> dict[str, Option]:
    """Return the options of single commands by name, `command.key`."""
    sections = (
        ("bench", BenchSection),
        ("inspect", InspectSection),
        ("validation", ValidationSection),
        ("design", DistillationConfig),
        ("design", Effort),
    )
    listed = [option for name, section in sections for option in options(section, name)]
    return {option.name: option for option in listed}
