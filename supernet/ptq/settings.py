"""What the post-training kit may use."""

from dataclasses import dataclass
from typing import Annotated

from hw_profiles.options import Range, check


@dataclass(frozen=True)
class PtqSettings:
    """What the post-training kit may use.

    Attributes:
        rows: most inputs of one unit's product that errors are computed on.
        memory_bytes: of these inputs, all units together.
        activation_bytes: of tensors that one inference gives at once; more are observed in several.
        rounding_s: about how long the rounding of weights is learned on one core, all units and formats
            together; weights beyond are rounded to nearest.
    """

    rows: Annotated[int, Range(16, 65_536)] = 2_048
    memory_bytes: Annotated[int, Range(2**20, 2**40)] = 384 * 2**20
    activation_bytes: Annotated[int, Range(2**20, 2**40)] = 256 * 2**20
    rounding_s: Annotated[float, Range(0, 1e6)] = 60.0

    def __post_init__(self) -> None:
        check(self, "post-training quantization")
