"""TensorFlow Lite Micro as a runtime: `.tflite` files that need little memory, run by its reference kernels.
How long that takes here says nothing of a microcontroller: it is not timed.
"""

from collections.abc import Sequence
from importlib.metadata import version

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.measure.interleave import Timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.litert.options import LitertOptions
from hw_profiles.runtimes.litert.runtime import FlatExecutable, LitertRuntime
from hw_profiles.runtimes.runtime import Array, Arrays
from hw_profiles.runtimes.tflite_micro.interpreter import MicroExecutable

ENGINE = "tflite-micro"
LEAN = LitertOptions("builtin", files="lean")
NO_TIMES = (
    "tflite-micro runs networks on this machine to count what they need, and times none: times of a "
    "microcontroller come from a profile or a published table of it, tflite-micro:FILE; to time this "
    "machine, take litert"
)


# LiteRT has these, the interpreter for microcontrollers has not: found by trying all
LACKING = frozenset({"Gelu"})


class MicroFile(FlatExecutable):
    """A `.tflite` file in the interpreter for microcontrollers; what it reads and gives is as LiteRT has it.

    Args:
        content: of the file.

    Raises:
        TrilobitError: either rejects the file; says why.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content, LEAN)
        self._micro = MicroExecutable(content)

    def answer(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs for inputs, both in the order and the shapes of the file."""
        return self._micro.run(*arrays, outputs=len(self.outputs))

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Refuse.

        Raises:
            TrilobitError: always.
        """
        raise TrilobitError(NO_TIMES)


class MicroRuntime(LitertRuntime):
    """TensorFlow Lite Micro on this machine, one example at a time."""

    engine = "TensorFlow Lite Micro"
    ops = LitertRuntime.ops - LACKING

    def __init__(self) -> None:
        super().__init__(LEAN)

    def describe(self) -> DeviceInfo:
        """Return the engine; what computes here is none of its business."""
        return DeviceInfo(
            name=ENGINE,
            cpu="any microcontroller",
            engine=ENGINE,
            engine_version=version("tflite-micro"),
            provider="reference kernels",
            integer_sums="exact",
            figures="none",
        )

    def why_not(self, layer: Layer) -> str:
        """Return which operation, or which pair of formats, it lacks."""
        return f"{self.engine} has no {layer.kind}" if layer.kind in LACKING else super().why_not(layer)

    def opened(self, content: bytes) -> FlatExecutable:
        """Open a `.tflite` file.

        Raises:
            TrilobitError: it is rejected; says why.
        """
        return MicroFile(content)
