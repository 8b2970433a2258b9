"""A network's shared library on the machine where it is used: whether it runs there, what it gives, how long
it takes. Needs no TVM.
"""

import ctypes
import platform
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.cache import IDS
from hw_profiles.measure.host import pinned
from hw_profiles.measure.interleave import ReferenceWorkload, Timed, interleaved, timed
from hw_profiles.measure.measurement import Clock, Measurement, MeasurePlan
from hw_profiles.runtimes.runtime import Array, Arrays, TensorInfo
from nas.checks.confined import ConfinedError, Limits, confined

LIBRARY, ENTRY = "model.so", "trilobit_run"
IMAGES, LOGITS = "images", "logits"  # what its executable reads, where that is no text, and gives
EXAMPLES = "examples"  # argument of `library_logits`
ELF = b"\x7fELF"
MACHINES = {0x03: "i386", 0x28: "arm", 0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv64"}  # e_machine
_SAME = {"amd64": "x86_64", "arm64": "aarch64"}  # other names that systems give
WAITING_S = 5.0  # for quiet windows, of one library


class OtherProcessorError(TrilobitError):
    """A library is for another processor than this machine's."""


def require_machine(path: Path, machine: str = "", *, where: str = "this machine") -> None:
    """Refuse a library for another kind of processor, by its header alone.

    Args:
        machine: kind of processor, as `uname -m` calls it; empty for this machine's.
        where: what that is, for people.

    Raises:
        OtherProcessorError: it is.
        TrilobitError: it is no shared library.
    """
    made_for, processor = machine_of(path), (machine or platform.machine()).lower()
    processor = _SAME.get(processor, processor)
    if made_for != processor:
        raise OtherProcessorError(
            f"{path.name} is for {made_for}, {where} is {processor}: run it on the one it is for"
        )


def stopped(path: Path, error: Exception) -> TrilobitError:
    """Return what to say of a library that gave no answer in a process of its own."""
    if isinstance(error, ConfinedError) and error.ended_by == signal.SIGILL:
        return OtherProcessorError(
            f"{path.name} uses instructions that the processor lacks: export one for it"
        )
    return TrilobitError(f"{path}: does not run ({error}); export it again")


def machine_of(path: Path) -> str:
    """Return the kind of processor that a shared library is for, as `uname -m` calls it.

    Raises:
        TrilobitError: it is no ELF file.
    """
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or not head.startswith(ELF):
        raise TrilobitError(f"{path}: no shared library (ELF); give one that `nas export --library` wrote")
    code = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    return MACHINES.get(code, f"a processor of ELF machine {code}")


@dataclass(frozen=True)
class LibraryExecutable:
    """A network's library as what runs: it loads machine code into the process that it runs in, which for a
    library of others must be a confined one.

    Attributes:
        path: of the file.
        shape: (h, w, c) of an image, or (length,) of the ids of a text.
        answer: (classes,) of the logits for an example, or (length, classes) of those for its tokens.
    """

    path: Path
    shape: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def reads_text(self) -> bool:
        """Whether examples are texts, not images."""
        return len(self.shape) == 1

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Any number of normalised images (n, c, h, w), or texts (n, length), as its network's ONNX file
        reads them.
        """
        if self.reads_text:
            return (TensorInfo(IDS, (None, *self.shape), "int64"),)
        h, w, c = self.shape
        return (TensorInfo(IMAGES, (None, c, h, w), "float32"),)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Their logits."""
        return (TensorInfo(LOGITS, (None, *self.answer), "float32"),)

    @cached_property
    def _function(self) -> Callable[[int, int], int]:
        function: Callable[[int, int], int] = getattr(ctypes.CDLL(str(self.path.absolute())), ENTRY)
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]  # type: ignore[attr-defined]
        return function

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the logits of examples, one after the other.

        Raises:
            ValueError: they are of another shape.
            RuntimeError: a unit failed.
        """
        examples = self.stored(inputs[self.inputs[0].name])
        if examples.shape[1:] != self.shape:
            what = self.inputs[0].name
            raise ValueError(f"{self.path.name} reads {what} {self.shape}, got {examples.shape[1:]}")
        logits = np.zeros((len(examples), *self.answer), np.float32)
        for example, row in zip(examples, logits, strict=True):
            if code := self._function(example.ctypes.data, row.ctypes.data):
                raise RuntimeError(f"{self.path.name}: code {code}")
        return {LOGITS: logits}

    def stored(self, examples: Array) -> Array:
        """Return examples as they lie in memory, images with their channels last."""
        if self.reads_text:
            return np.ascontiguousarray(examples, np.int64)
        return np.ascontiguousarray(examples.transpose(0, 2, 3, 1), np.float32)

    @property
    def example(self) -> Array:
        """What it is timed on, as that lies in memory: an image of random numbers, or a text."""
        if self.reads_text:
            return np.zeros((1, *self.shape), np.int64)  # an id that every vocabulary has
        return np.random.default_rng(0).standard_normal((1, *self.shape), np.float32)

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on one example: it takes no more at a time, whatever the batch."""
        run, read = self._function, self.inputs[0]
        example_array = self.example if example is None else self.stored(example[read.name][:1])
        logits = np.zeros(self.answer, np.float32)
        return timed(lambda: run(example_array.ctypes.data, logits.ctypes.data), clock)

    def kernels(self) -> Mapping[str, int]:
        """Return nothing: a file does not say what is inside it."""
        return {}

    def request(self) -> dict[str, Any]:
        """Return it as plain data, for a process of its own."""
        return {"path": str(self.path.absolute()), "shape": self.shape, "answer": self.answer}

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> Self:
        """Return what `request` gave."""
        return cls(Path(request["path"]), tuple(request["shape"]), tuple(request["answer"]))


@dataclass(frozen=True)
class CompiledFile(LibraryExecutable):
    """A library that was compiled of a network's ONNX file: it reads what that reads, images with their
    channels first.

    Attributes:
        name: of what it reads.
    """

    name: str = IMAGES

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Any number of what the file reads."""
        return (TensorInfo(self.name, (None, *self.shape), "float32"),)

    def stored(self, examples: Array) -> Array:
        """Return examples as they lie in memory."""
        return np.ascontiguousarray(examples, np.float32)


def library_logits(request: Mapping[str, Any], examples: Array) -> tuple[float, dict[str, Array]]:
    """Return the seconds per example and the logits of a requested library: to be run confined."""
    start, library = time.perf_counter(), LibraryExecutable.of(request)
    outputs = library.run({library.inputs[0].name: examples})
    return (time.perf_counter() - start) / len(examples), outputs


def confined_logits(
    library: LibraryExecutable, examples: Array, limits: Limits
) -> tuple[float, NDArray[np.float32]]:
    """Return seconds per example, and (n, ..., classes) logits of normalised images (n, c, h, w) or texts
    (n, length), from a process of its own.

    Raises:
        ConfinedError: it gave none.
    """
    task = "nas.export.library.library:library_logits"
    run_s, arrays = confined(task, library.request(), limits=limits, arrays={EXAMPLES: examples})
    logits: NDArray[np.float32] = arrays[LOGITS]
    whole = logits.shape == (len(examples), *library.answer) and logits.dtype == np.float32
    if not whole or not isinstance(run_s, float):
        raise ConfinedError("its answer cannot be read")
    return run_s, logits


def library_time(request: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the latency of a requested library, as a `Measurement`: to be run confined."""
    return asdict(library_latency(LibraryExecutable.of(request))), {}


def library_latency(library: LibraryExecutable, plan: MeasurePlan | None = None) -> Measurement:
    """Return seconds per example, measured as a profile is."""
    plan = plan or MeasurePlan(waiting_s=WAITING_S)
    with pinned(plan.core):
        [samples] = interleaved([[library.timed(plan.clock)]], plan, ReferenceWorkload())
    return Measurement.of(samples)
