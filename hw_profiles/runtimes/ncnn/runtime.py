"""ncnn on this machine."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.interleave import Timed, timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.file_runtime import FileExecutable, FileRuntime, timed_inputs
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.ncnn.importer import Imported, Importer
from hw_profiles.runtimes.ncnn.operations import OPERATIONS
from hw_profiles.runtimes.ncnn.options import NcnnOptions
from hw_profiles.runtimes.onnx_file import end_infos
from hw_profiles.runtimes.runtime import Array, Arrays, Artifact, TensorInfo

NO_KERNELS = frozenset(("Input", "Split"))  # layers that compute nothing
CHANNELS = 16  # of the convolution that tells what is computed in: a whole register of them
# of a number that f32 holds, and neither f16 nor bf16
FINE = 1 + 2.0**-12
_MAGIC = 7767517  # at the beginning of every description of layers


class NcnnExecutable(FileExecutable):
    """A network for one image.

    Args:
        net: with its layers and weights.
        imported: what it was made of.
        inputs, outputs: of the ONNX file; the first size of each is 1.

    Raises:
        TrilobitError: it cannot be run.
    """

    def __init__(
        self, net: Any, imported: Imported, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
    ) -> None:
        self._net, self._imported = net, imported
        self.inputs = tuple(inputs)
        zeros = {info.name: np.zeros(_sizes(info), info.dtype) for info in inputs}
        given = [np.array(mat) for mat in self._extract(self._mats(zeros), len(outputs))]
        self.outputs = tuple(map(_shaped, outputs, given))

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs for one image by name."""
        mats = self._extract(self._mats(inputs), len(self.outputs))
        pairs = zip(self.outputs, mats, strict=True)
        return {info.name: np.array(mat).reshape(_sizes(info)) for info, mat in pairs}

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs on inputs that stay where they are."""
        mats, count = self._mats(timed_inputs(self.inputs, 1, example)), len(self.outputs)
        return timed(lambda: self._extract(mats, count), clock)

    def kernels(self) -> Counter[str]:
        """Return how many layers of each kind it runs."""
        return Counter(kind for kind in self._imported.kinds if kind not in NO_KERNELS)

    def _mats(self, inputs: Arrays) -> list[Any]:
        """Return inputs as ncnn has them, in its own memory: without the first size, which is 1."""
        arrays = [np.ascontiguousarray(inputs[info.name], np.float32) for info in self.inputs]
        return [ncnn.Mat(array[0] if array.ndim > 1 else array).clone() for array in arrays]

    def _extract(self, mats: Sequence[Any], count: int) -> list[Any]:
        extractor = self._net.create_extractor()
        for number, mat in enumerate(mats):
            extractor.input(f"in{number}", mat)
        given = []
        for number in range(count):
            code, mat = extractor.extract(f"out{number}")
            if code:
                raise TrilobitError(f"ncnn does not run it (error {code})")
            given.append(mat)
        return given


def _sizes(info: TensorInfo) -> tuple[int, ...]:
    """Return the shape of one image, or of what is said of one."""
    return tuple(1 if size is None else size for size in info.shape)


def _shaped(info: TensorInfo, given: Array) -> TensorInfo:
    """Return an output with all its sizes, by what it gave once."""
    declared = _sizes(info)
    shape = declared if np.prod(declared) == given.size else (1, *given.shape)
    return TensorInfo(info.name, shape, "float32")


class NcnnRuntime(FileRuntime):
    """ncnn on this machine.

    Raises:
        TrilobitError: the processor does not compute in this precision.
    """

    engine = "ncnn"
    ops = frozenset(kind for kinds in OPERATIONS.functions.values() for kind in kinds)

    def __init__(self, options: NcnnOptions | None = None) -> None:
        self.options = options or NcnnOptions()
        self._importer = Importer()
        precision = self.options.precision
        if precision != "f32" and is_fine(precision):
            raise TrilobitError(f"precision {precision!r}: ncnn computes in f32 on this processor")

    @property
    def clock(self) -> Clock:
        """The calling thread where that does all the work."""
        return "thread" if self.options.threads == 1 else "wall"

    def describe(self) -> DeviceInfo:
        """Return the engine with its options."""
        options = self.options
        words = (*options.arrangement.lower().split(), f"{options.threads}t")
        return DeviceInfo(
            name=f"ncnn-{'-'.join(words)}",
            cpu=cpu_model(),
            engine=self.engine,
            engine_version=version("ncnn"),
            provider=options.arrangement,
            threads=options.threads,
            integer_sums="exact",  # there are none
        )

    def compile(self, artifact: Artifact) -> NcnnExecutable:
        """Import a file, for one image.

        Raises:
            TrilobitError: it leaves sizes open besides the number of images, or has what ncnn has not.
        """
        inputs, outputs = end_infos(artifact.content)
        bound = tuple(_bound(info, artifact.example) for info in inputs)
        imported = self._importer.read(artifact.content, bound)
        if lacking := [kind for kind in dict.fromkeys(imported.kinds) if ncnn.layer_to_index(kind) < 0]:
            raise TrilobitError(f"ncnn has no {', '.join(map(_as_in_files, lacking))}")
        return NcnnExecutable(opened(imported, self.options), imported, bound, outputs)


def _bound(info: TensorInfo, example: Arrays | None) -> TensorInfo:
    """Return an input of a file with all its sizes: of one image, else those of an example."""
    if example is not None and None in info.shape[1:]:
        info = replace(info, shape=np.shape(example[info.name]))
    shape = (info.shape[0] or 1, *info.shape[1:]) if info.shape else ()
    if None in shape:
        raise TrilobitError(f"ncnn reads inputs of known sizes; {info.name} has open ones")
    if shape[:1] != (1,):
        images = shape[0] if shape else "none"
        raise TrilobitError(f"ncnn reads one image at a time; input {info.name} has {images}")
    return replace(info, shape=shape)


def _as_in_files(kind: str) -> str:
    """Return ONNX's name of what the importer left as it was."""
    return kind.rpartition(".")[2].rpartition("::")[2]


def opened(imported: Imported, options: NcnnOptions) -> Any:
    """Return a network, ready to run.

    Raises:
        TrilobitError: ncnn does not load it.
    """
    net, precision = ncnn.Net(), options.precision
    net.opt.use_vulkan_compute, net.opt.num_threads = False, options.threads
    for numbers, name in (("fp16", "f16"), ("bf16", "bf16")):
        for use in ("packed", "storage", "arithmetic"):
            if hasattr(net.opt, option := f"use_{numbers}_{use}"):
                setattr(net.opt, option, precision == name)
    with tempfile.TemporaryDirectory(prefix="trilobit-") as name:
        layers, weights = Path(name) / "layers", Path(name) / "weights"
        layers.write_text(imported.layers)
        weights.write_bytes(imported.weights)
        if net.load_param(str(layers)) or net.load_model(str(weights)):
            raise TrilobitError("ncnn does not load what its importer wrote")
    return net


@cache
def is_fine(precision: str) -> bool:
    """Return whether this processor tells a number of more digits than f16 and bf16 hold from 1, by running a
    convolution: ncnn says nothing where it leaves out what the processor lacks.
    """
    count = CHANNELS * CHANNELS
    described = f"{_MAGIC}\n2 2\nInput x 0 1 in0\nConvolution y 1 1 in0 out0 0={CHANNELS} 1=1 6={count}\n"
    weight = np.eye(CHANNELS, dtype=np.float32) * np.float32(FINE)
    imported = Imported(described, np.zeros(1, np.uint32).tobytes() + weight.tobytes())
    shape = (1, CHANNELS, 4, 4)
    image, answer = TensorInfo("x", shape, "float32"), TensorInfo("y", shape, "float32")
    net = opened(imported, NcnnOptions(precision=precision))  # type: ignore[arg-type]
    executable = NcnnExecutable(net, imported, (image,), (answer,))
    return bool((executable.run({"x": np.ones(shape, np.float32)})["y"] != 1).all())
