"""What of LiteRT stays here when its interpreters are on boards: files are converted here, and what has its
channels first in the network is turned here, since a board only knows its own file.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from hw_profiles.measure.interleave import Timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.litert.conversion import TO_FIRST, TO_LAST
from hw_profiles.runtimes.litert.flat_file import channels_first, is_flat, kernels
from hw_profiles.runtimes.litert.options import LitertOptions
from hw_profiles.runtimes.litert.runtime import LitertRuntime, largest_codes, largest_sums, sums_of
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, TensorInfo
from hw_profiles.runtimes.transports.board_runtime import (
    BoardExecutable,
    BoardRuntime,
    EngineHere,
    RunsThere,
)
from hw_profiles.runtimes.transports.boards import Boards


class FlatOnBoard(BoardExecutable):
    """An interpreter on a board, read and given with channels first where the network has them so."""

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs by name."""
        first = channels_first(self.addressed.content)
        outputs = super().run(channels_last(inputs, first))
        return {name: _turned(array, TO_FIRST) if name in first else array for name, array in outputs.items()}

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs there."""
        turned = None if example is None else channels_last(example, channels_first(self.addressed.content))
        return super().timed(clock, batch=batch, example=turned)


class FlatBoardRuntime(BoardRuntime):
    """LiteRT on boards, which runs files of its own in place of ONNX files."""

    @property
    def file_name(self) -> str:
        """What such a file is called beside the ONNX file."""
        return LitertRuntime().file_name

    def own_file(self, content: bytes, example: Arrays | None = None) -> bytes:
        """Return the `.tflite` file of an ONNX file.

        Raises:
            TrilobitError: it cannot be converted; says why.
        """
        local = self.here.local
        assert isinstance(local, LitertRuntime)
        return local.own_file(content, example)


@dataclass(frozen=True)
class LitertHere(EngineHere):
    """The part of this machine.

    Attributes:
        options: of the runtime.
    """

    options: LitertOptions
    package = "ai-edge-litert"
    oldest = (1, 0)
    tells_graph = False

    @cached_property
    def local(self) -> LitertRuntime:
        """What knows the formats and converts files."""
        return LitertRuntime(self.options)

    @property
    def engine(self) -> Mapping[str, Any]:
        """What an agent opens files with."""
        own = {field: getattr(self.options, field) for field in asdict(LitertOptions())}
        return {"name": self.package, "options": own}

    def on(self, boards: Boards) -> BoardRuntime:
        """Return the runtime on boards."""
        return FlatBoardRuntime(self, boards)

    def opened(self, executable: BoardExecutable) -> BoardExecutable:
        """Return an interpreter that is read and given as the network is."""
        first = channels_first(executable.addressed.content)
        inputs, outputs = (
            tuple(_info(info, first) for info in infos) for infos in (executable.inputs, executable.outputs)
        )
        return FlatOnBoard(executable.runtime, executable.addressed, inputs, outputs)

    def content(self, artifact: Artifact) -> bytes:
        """Return the `.tflite` file of an artifact.

        Raises:
            TrilobitError: it cannot be converted; says why.
        """
        if is_flat(artifact.content):
            return artifact.content
        return self.local.own_file(artifact.content, artifact.example)

    def example(self, content: bytes, example: Arrays | None) -> Arrays | None:
        """Return what a file reads while it is timed, as that file has it."""
        return None if example is None else channels_last(example, channels_first(content))

    def integer_sums(self, run: RunsThere) -> Literal["exact", "saturating"]:
        """Return what its kernels there do with sums that leave 16 bits."""
        return sums_of(run(largest_sums(), largest_codes()))

    def kernels(self, graph: bytes, content: bytes) -> Counter[str]:
        """Return the operators of the file."""
        return kernels(content)


def channels_last(arrays: Arrays, first: Any) -> dict[str, Array]:
    """Return arrays with those turned that the network has with channels first."""
    return {name: _turned(array, TO_LAST) if name in first else array for name, array in arrays.items()}


def _turned(array: Array, axes: Any) -> Array:
    return np.ascontiguousarray(array.transpose(axes)) if array.ndim == len(axes) else array


def _info(info: TensorInfo, first: Any) -> TensorInfo:
    if info.name not in first or len(info.shape) != len(TO_FIRST):
        return info
    return replace(info, shape=tuple(info.shape[axis] for axis in TO_FIRST))
