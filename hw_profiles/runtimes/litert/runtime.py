"""LiteRT on this machine: it runs `.tflite` files, and ONNX files as such."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from itertools import product
from typing import Any, Literal

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from hw_profiles.errors import TrilobitError, one_line
from hw_profiles.graph.formats import ELEMENTS, FP32, element_types, in_integers, tensor_bits
from hw_profiles.graph.layer import Layer
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.interleave import Timed, timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.file_runtime import FileExecutable, FileRuntime, timed_inputs
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.litert.conversion import INT8, TO_FIRST, TO_LAST
from hw_profiles.runtimes.litert.flat_file import channels_first, is_flat, kernels, serialise
from hw_profiles.runtimes.litert.flat_model import FlatModel, FlatTensor
from hw_profiles.runtimes.litert.operators import OPERATIONS, why_not
from hw_profiles.runtimes.litert.options import LitertOptions
from hw_profiles.runtimes.litert.to_tflite import Sizes, input_sizes, to_tflite
from hw_profiles.runtimes.onnx_file import input_infos, signature
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, Dialect, Executable, TensorInfo

MODEL_FILE = "model.tflite"
CHANNELS, OUTPUTS = 64, 8  # of the product that is run to learn what happens to large sums
LARGEST_CODE, LARGEST_WEIGHT, EXACT = 127, 127, 100
STANDARD_ERROR = 2
CODE_BITS = 8
AGREEMENT = {"XNNPACK": 0.995, "builtin": 0.97}  # with simulations, in the labels of a network
MOST_SIZES = 16  # of one file, of which an interpreter is kept
# of the operators that the converter writes those that compute on codes
INTEGER_KERNELS = frozenset(
    f"{code}_INT8"
    for code in (
        *("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "MEAN"),
        *("MAX_POOL_2D", "AVERAGE_POOL_2D", "MAXIMUM", "MINIMUM"),
        *("RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR", "DEPTH_TO_SPACE"),
    )
)


class FlatExecutable(FileExecutable):
    """An interpreter of a `.tflite` file. What the file notes to have its channels first in the network that
    it was made of is read and given so; it is transposed before and after the runs that are timed.

    Args:
        content: of the file.
        options: of the runtime.

    Raises:
        TrilobitError: LiteRT rejects the file.
    """

    def __init__(self, content: bytes, options: LitertOptions) -> None:
        _introduced()
        self._content = content
        self._first = channels_first(content)
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        resolver = OpResolverType.AUTO if options.provider == "XNNPACK" else plain
        try:
            self._interpreter: Any = Interpreter(
                model_content=content,
                num_threads=options.threads,
                experimental_op_resolver_type=resolver,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise TrilobitError(f"LiteRT: {one_line(error)}") from None
        names = self._signed()
        self._reads, self._gives = (
            [{**each, "name": names.get(each["index"], each["name"])} for each in details]
            for details in (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        )
        self.inputs = tuple(map(self._info, self._reads))
        self.outputs = tuple(map(self._info, self._gives))

    def _signed(self) -> dict[int, str]:
        """Return what inputs and outputs are called by the file's only signature, by their places: tools
        that rewrite files rename tensors, not these.
        """
        signatures = self._interpreter.get_signature_list()
        if len(signatures) != 1:
            return {}
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        details = {**runner.get_input_details(), **runner.get_output_details()}
        return {each["index"]: name for name, each in details.items()}

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs of one batch by name."""
        given = self.answer([self._read(each, inputs) for each in self._reads])
        return {
            each["name"]: np.ascontiguousarray(array.transpose(TO_FIRST)) if self._is_turned(each) else array
            for each, array in zip(self._gives, given, strict=True)
        }

    def answer(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the outputs for inputs, both in the order and the shapes of the file."""
        for each, array in zip(self._reads, arrays, strict=True):
            self._interpreter.set_tensor(each["index"], array)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(each["index"]) for each in self._gives]

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on an input that stays where it is."""
        inputs = timed_inputs(self.inputs, 1, example)
        self.answer([self._read(each, inputs) for each in self._reads])
        return timed(self._interpreter.invoke, clock)

    def kernels(self) -> Counter[str]:
        """Return the operators of the file; a delegate that takes them over computes the same."""
        return kernels(self._content)

    def _read(self, details: Mapping[str, Any], inputs: Arrays) -> Array:
        array = np.asarray(inputs[details["name"]])
        return np.ascontiguousarray(array.transpose(TO_LAST) if self._is_turned(details) else array)

    def _is_turned(self, details: Mapping[str, Any]) -> bool:
        return details["name"] in self._first and len(details["shape"]) == len(TO_LAST)

    def _info(self, details: Mapping[str, Any]) -> TensorInfo:
        shape = [int(size) for size in details["shape"]]
        if self._is_turned(details):
            shape = [shape[axis] for axis in TO_FIRST]
        return TensorInfo(details["name"], tuple(shape), str(np.dtype(details["dtype"])))


class OpenExecutable(FileExecutable):
    """An ONNX file whose sizes are open: a `.tflite` file is made of it for each of what it is run on.

    Args:
        content: of the ONNX file.
        at_sizes: makes and opens the `.tflite` file for some.
        example: of sizes that its kernels are named for; None where none is known.
    """

    def __init__(
        self, content: bytes, at_sizes: Callable[[Sizes], FlatExecutable], example: Arrays | None
    ) -> None:
        self._at_sizes = at_sizes
        self._opened: dict[tuple[tuple[int, ...], ...], FlatExecutable] = {}
        self._example = example
        self.inputs = input_infos(content)
        named = signature(content)
        self.outputs = tuple(
            TensorInfo(
                each.name, tuple(s if isinstance(s, int) else None for s in each.shape), str(each.dtype)
            )
            for each in (named[1] if named else ())
        )
        if example is not None:
            self._at(example)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs of one batch by name."""
        return self._at(inputs).run(inputs)

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on an input that stays where it is."""
        inputs = timed_inputs(self.inputs, batch or 1, example)
        return self._at(inputs).timed(clock, example=inputs)

    def kernels(self) -> Counter[str]:
        """Return the operators of the file for the example.

        Raises:
            TrilobitError: none is known.
        """
        if self._example is None:
            self._at({info.name: np.zeros([s or 1 for s in info.shape], info.dtype) for info in self.inputs})
        return next(iter(self._opened.values())).kernels()

    def _at(self, inputs: Arrays) -> FlatExecutable:
        sizes: Sizes = {info.name: np.shape(inputs[info.name]) for info in self.inputs}
        key = tuple(tuple(sizes[info.name]) for info in self.inputs)
        if key not in self._opened:
            while len(self._opened) >= MOST_SIZES:
                self._opened.pop(next(iter(self._opened)))
            self._opened[key] = self._at_sizes(sizes)
        return self._opened[key]


class LitertRuntime(FileRuntime):
    """LiteRT on this machine, one example at a time."""

    engine = "LiteRT"
    ops = frozenset(kind for kinds in OPERATIONS.functions.values() for kind in kinds)

    def __init__(self, options: LitertOptions | None = None) -> None:
        self.options = options or LitertOptions()

    @property
    def clock(self) -> Clock:
        """The calling thread where that does all the work."""
        return "thread" if self.options.threads == 1 else "wall"

    @property
    def dialect(self) -> Dialect:
        """As ONNX has it."""
        return Dialect("qdq", "uint8")

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """What of the built-in formats it has kernels for."""
        return frozenset((w, a) for w, a in product(ELEMENTS, repeat=2) if self.has_kernel(w, a))

    @property
    def agreement(self) -> float:
        """Share of answers that are the simulation's: the reference's kernels rescale by numbers of 31 bits,
        and round twice.
        """
        return AGREEMENT[self.options.provider]

    def has_kernel(self, weight: str, activation: str) -> bool:
        """Return whether there is a kernel: weights of fewer bits run on those of 8."""
        if in_integers(weight, activation):
            return tensor_bits(activation) == CODE_BITS and not element_types(weight).unsigned
        return (weight, activation) == (FP32, FP32)

    @property
    def integer_kernels(self) -> frozenset[str]:
        """By the operators of its files."""
        return INTEGER_KERNELS

    def describe(self) -> DeviceInfo:
        """Return the engine with its options."""
        words = [*self.options.arrangement.lower().split(), f"{self.options.threads}t"]
        return DeviceInfo(
            name=f"litert-{'-'.join(words)}",
            cpu=cpu_model(),
            engine="ai-edge-litert",
            engine_version=version("ai-edge-litert"),
            provider=self.options.arrangement,
            threads=self.options.threads,
            integer_sums=integer_sums(self.options),
        )

    def why_not(self, layer: Layer) -> str:
        """Return which operation, or which pair of formats, it lacks."""
        return why_not(layer) or super().why_not(layer)

    @property
    def file_name(self) -> str:
        """What a `.tflite` file is called beside the ONNX file that it was made of."""
        return MODEL_FILE

    def own_file(self, content: bytes, example: Arrays | None = None) -> bytes:
        """Return the `.tflite` file of an ONNX file, for one example where that takes any number.

        Args:
            example: of the sizes that it is made for, where others are open.

        Raises:
            TrilobitError: it cannot be converted; says why.
        """
        sizes = {name: np.shape(array) for name, array in (example or {}).items()}
        return to_tflite(content, sizes, lean=self.options.lean)

    def require_counter(self) -> None:
        """Import TensorFlow Lite Micro.

        Raises:
            ModuleNotFoundError: it is not installed.
        """
        from hw_profiles.runtimes.tflite_micro.interpreter import engine

        engine()

    def memory_bytes(self, content: bytes) -> tuple[int, int]:
        """Return arena and flash of a `.tflite` file, or of that which an ONNX file becomes, as TensorFlow
        Lite Micro takes them.

        Raises:
            TrilobitError: it cannot be converted, or that has no such operation; says which.
        """
        from hw_profiles.runtimes.tflite_micro.interpreter import micro_sizes

        taken = micro_sizes(content if is_flat(content) else self.own_file(content))
        return taken.arena_bytes, taken.flash_bytes

    def compile(self, artifact: Artifact) -> Executable:
        """Open a `.tflite` file, or an ONNX file as one.

        Raises:
            TrilobitError: it cannot be converted, or LiteRT rejects it; says why.
        """
        content = artifact.content
        if is_flat(content):
            return self.opened(content)

        def at_sizes(sizes: Sizes) -> FlatExecutable:
            return self.opened(to_tflite(content, sizes, lean=self.options.lean))

        if any(None in shape[1:] for shape in input_sizes(content).values()):
            return OpenExecutable(content, at_sizes, artifact.example)
        return at_sizes({})

    def opened(self, content: bytes) -> FlatExecutable:
        """Open a `.tflite` file.

        Raises:
            TrilobitError: LiteRT rejects it; says why.
        """
        return FlatExecutable(content, self.options)


@cache
def integer_sums(options: LitertOptions) -> Literal["exact", "saturating"]:
    """Return what its kernels do with sums that leave 16 bits: a product of the largest codes is run."""
    return sums_of(FlatExecutable(largest_sums(), options).run(largest_codes()))


def largest_codes() -> dict[str, Array]:
    """Return what `largest_sums` reads."""
    return {"codes": np.full((1, CHANNELS), LARGEST_CODE, np.int8)}


def sums_of(outputs: Arrays) -> Literal["exact", "saturating"]:
    """Return what the outputs of `largest_sums` say."""
    [codes] = outputs.values()
    return "exact" if (codes == EXACT).all() else "saturating"


def largest_sums() -> bytes:
    """Return a product whose weights are all the largest code, in steps of which the exact sum has the code
    `EXACT`.
    """
    flat = FlatModel()
    step = LARGEST_CODE * LARGEST_WEIGHT * CHANNELS / EXACT
    read = flat.add(FlatTensor("codes", (1, CHANNELS), INT8, (1.0,)))
    weight = flat.constant("weight", np.full((OUTPUTS, CHANNELS), LARGEST_WEIGHT, np.int8), scales=(1.0,))
    bias = flat.constant("bias", np.zeros(OUTPUTS, np.int32), scales=(1.0,))
    given = flat.add(FlatTensor("sums", (1, OUTPUTS), INT8, (float(np.float32(step)),)))
    flat.operator("FULLY_CONNECTED", (read, weight, bias), (given,), "FullyConnectedOptions", version=4)
    return serialise(flat, (read,), (given,))


@cache
def _introduced() -> None:
    """Let LiteRT say once, to nobody, which delegate it made: it does so on standard error."""
    kept = os.dup(STANDARD_ERROR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, STANDARD_ERROR)
        Interpreter(model_content=largest_sums(), num_threads=1).allocate_tensors()
    finally:
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)
        os.close(nowhere)
