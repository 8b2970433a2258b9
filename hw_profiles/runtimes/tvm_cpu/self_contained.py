"""A whole network with its weights as one shared library that needs nothing else, as an artifact and as what
runs. Needs no TVM.
"""

import _ctypes
import ctypes
import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hw_profiles.measure.interleave import Timed, timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.file_runtime import timed_inputs
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, KernelTime, TensorInfo

ENTRY = "trilobit_run"  # int trilobit_run(const void* input, void* output), of one example
ONE = 1


class Signature(NamedTuple):
    """What a library reads and gives, as the file that it was made of does.

    Attributes:
        reads, gives: of one example; the first dimension is None where any number of examples is taken, one
            after the other.
    """

    reads: TensorInfo
    gives: TensorInfo


def described(signature: Signature, layers: Sequence[str]) -> str:
    """Return what a library says of itself, in JSON, so that boards can be asked for it."""
    inputs, outputs = ([asdict(info)] for info in signature)
    return json.dumps({"inputs": inputs, "outputs": outputs, "layers": list(layers)})


@dataclass(frozen=True, eq=False)
class SelfContained:
    """A library that was built here.

    Attributes:
        content: of the file.
        signature: what it reads and gives.
        layers: keys of what it computes, in order.
        kernels: the same with what each took when it was tried out; none where that is not known.
    """

    content: bytes
    signature: Signature
    layers: tuple[str, ...] = ()
    kernels: tuple[KernelTime, ...] = ()

    @property
    def artifact(self) -> Artifact:
        """As a runtime compiles it that remembers it."""
        return Artifact(self.content, "library")


@dataclass(frozen=True)
class SelfContainedExecutable:
    """A library as what runs: it loads machine code into the process that it runs in, which for a library of
    others must be a confined one.

    Attributes:
        path: of the file.
        signature: what it reads and gives.
        layers: see `SelfContained`.
    """

    path: Path
    signature: Signature
    layers: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The one tensor that it reads."""
        return (self.signature.reads,)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The one tensor that it gives."""
        return (self.signature.gives,)

    @cached_property
    def _function(self) -> Callable[[int, int], int]:
        library = ctypes.CDLL(str(self.path.absolute()))
        # a function of it keeps the library, which Python itself would never close
        weakref.finalize(library, _ctypes.dlclose, library._handle)
        function: Callable[[int, int], int] = getattr(library, ENTRY)
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]  # type: ignore[attr-defined]
        return function

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return its output for examples (n, ...), one after the other.

        Raises:
            ValueError: they are of another shape or type.
            RuntimeError: a unit failed.
        """
        (reads, gives), array = self.signature, inputs[self.signature.reads.name]
        examples = array if reads.shape[0] is None else array[None]
        shape = reads.shape[1:] if reads.shape[0] is None else reads.shape
        if examples.shape[1:] != shape or array.dtype != reads.dtype:
            raise ValueError(
                f"{reads.name} is {reads.dtype} of {reads.shape}, got {array.dtype} of {array.shape}"
            )
        output_shape = [ONE if size is None else size for size in gives.shape]
        results = [self._one(np.ascontiguousarray(example), output_shape) for example in examples]
        return {gives.name: np.concatenate(results) if reads.shape[0] is None else results[0]}

    def _one(self, example: Array, shape: list[int]) -> NDArray[np.float32]:
        result = np.empty(shape, np.float32)
        if code := self._function(example.ctypes.data, result.ctypes.data):
            raise RuntimeError(f"{self.path.name}: code {code}")
        return result

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on one example: it takes no more at a time, whatever the batch."""
        reads, gives = self.signature
        array = timed_inputs((reads,), ONE, example)[reads.name]
        result = np.empty([ONE if size is None else size for size in gives.shape], np.float32)
        run, source, target = self._function, array.ctypes.data, result.ctypes.data

        def once() -> None:
            run(source, target)
            array, result  # noqa: B018  they are kept as long as this is

        return timed(once, clock)

    def kernels(self) -> Mapping[str, int]:
        """Return how often each layer is computed; nothing where that is not known."""
        return {key: self.layers.count(key) for key in dict.fromkeys(self.layers)}
