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
    """

    rows: Annotated[int, Range(16, 65_536)] = 2_048
    memory_bytes: Annotated[int, Range(2**20, 2**40)] = 384 * 2**20
    activation_bytes: Annotated[int, Range(2**20, 2**40)] = 256 * 2**20

    def __post_init__(self) -> None:
        check(self, "post-training quantization")
