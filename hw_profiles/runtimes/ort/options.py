"""What can be chosen of ONNX Runtime."""

from dataclasses import dataclass
from typing import Annotated

from hw_profiles.options import Range, check
from hw_profiles.runtimes.plugin import SECTION


@dataclass(frozen=True)
class OrtOptions:
    """What can be chosen of ONNX Runtime.

    Attributes:
        provider: execution provider, with or without its `ExecutionProvider` suffix.
        threads: threads of one inference.
        batch: images of one inference.
    """

    provider: str = "CPU"
    threads: Annotated[int, Range(1, 1_024)] = 1
    batch: Annotated[int, Range(1, 65_536)] = 1

    def __post_init__(self) -> None:
        check(self, SECTION)

    @property
    def on_gpu(self) -> bool:
        """Whether a graphics card by NVIDIA does the work."""
        return self.provider.lower().startswith(("cuda", "tensorrt", "nvtensorrt"))
