"""ONNX Runtime's own recipes of post-training quantization (`onnxruntime.quantization`), as its tools and
their documentation have them: what the files of a tuned network are compared with.

Each runs in a process of its own (`nas.checks.confined`), on somebody's file and on examples of what that
reads.
"""

import contextlib
import hashlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import version_converter

from hw_profiles.runtimes.ort.runtime import CPU, integer_sums, open_session
from hw_profiles.runtimes.runtime import Array, Arrays

from onnxruntime.quantization import (  # isort: skip  # after the runtime, which switches telemetry off
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.registry import IntegerOpsRegistry  # isort: skip
from onnxruntime.quantization.shape_inference import quant_pre_process  # isort: skip

CURRENT_OPSET = 17  # with DequantizeLinear by channel, and every operation that its optimizer makes
UNIMPLEMENTED = frozenset({"Conv"})  # dynamically: its ConvInteger takes no signed weights
UNSTATED, PREPARED, QUANTIZED = "unstated.onnx", "prepared.onnx", "quantized.onnx"
Answer = tuple[dict[str, Any], dict[str, Array]]
Quantize = Callable[[Path, Path], None]


class _Examples(CalibrationDataReader):  # type: ignore[misc]  # untyped
    """Examples one at a time, each a batch of its own."""

    def __init__(self, feeds: Iterator[dict[str, Array]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, Array] | None:
        """Return the next example; None after the last."""
        return next(self._feeds, None)


def static_defaults(request: Mapping[str, Any], **arrays: Array) -> Answer:
    """Return what `quantize_static` makes of the file at `path` with all its defaults: int8 activations and
    weights, a scale for each tensor, ranges by minimum and maximum.

    Args:
        request: `path` of the file, `names` of its inputs, `folder` for what is kept between recipes.
        arrays: (n, ...) examples of each input, as `input_0` and so on.

    Raises:
        Exception: whatever ONNX Runtime refuses.
    """
    return _answer(request, _static(request, arrays))


def static_advised(request: Mapping[str, Any], **arrays: Array) -> Answer:
    """Return what `quantize_static` makes of a file with the choices that its documentation advises for x86:
    uint8 activations, int8 weights with a scale for each channel, of 7 bits where sums saturate.

    Args:
        request, arrays: see `static_defaults`.

    Raises:
        Exception: whatever ONNX Runtime refuses.
    """
    choices = {
        "activation_type": QuantType.QUInt8,
        "per_channel": True,
        "reduce_range": integer_sums(CPU) == "saturating",
    }
    return _answer(request, _static(request, arrays, **choices))


def dynamic_defaults(request: Mapping[str, Any], **_: Array) -> Answer:
    """Return what `quantize_dynamic` makes of the file at `path` with its defaults, but for convolutions,
    which ONNX Runtime cannot run then.

    Args:
        request: see `static_defaults`.

    Raises:
        Exception: whatever ONNX Runtime refuses.
    """
    operations = sorted(IntegerOpsRegistry.keys() - UNIMPLEMENTED)
    return _answer(request, lambda source, target: quantize_dynamic(source, target, operations))


def _static(request: Mapping[str, Any], arrays: Arrays, **choices: Any) -> Quantize:
    def quantize(source: Path, target: Path) -> None:
        ranges = Path(request["folder"]) / f"ranges-{hashlib.sha256(source.read_bytes()).hexdigest()}.json"
        feeds = _feeds(request["names"], arrays)
        quantize_static(source, target, _Examples(feeds), calibration_cache_path=ranges, **choices)

    return quantize


def _feeds(names: Sequence[str], arrays: Arrays) -> Iterator[dict[str, Array]]:
    inputs = {name: arrays[f"input_{i}"] for i, name in enumerate(names)}
    for row in range(len(next(iter(inputs.values())))):
        yield {name: np.array(array[row]) for name, array in inputs.items()}


def _answer(request: Mapping[str, Any], quantize: Quantize) -> Answer:
    """Return the quantized file that loads, and what had to be done for that."""
    with tempfile.TemporaryDirectory(prefix="trilobit-") as name, _silent():
        folder = Path(name)
        original = _unstated(Path(request["path"]), folder)
        notes: list[str] = []
        content = _quantized(original, folder, quantize, notes)
    return {"notes": notes}, {"model": np.frombuffer(content, np.uint8)}


def _unstated(original: Path, folder: Path) -> Path:
    """Return the file without what it says of stored tensors, as torch's exporter does: recipes transpose
    some of them, and then refuse what they made.
    """
    proto = onnx.load(original)
    stored = {tensor.name for tensor in proto.graph.initializer}
    others = [value for value in proto.graph.value_info if value.name not in stored]
    if len(others) == len(proto.graph.value_info):
        return original
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(others)
    onnx.save(proto, folder / UNSTATED)
    return folder / UNSTATED


def _quantized(original: Path, folder: Path, quantize: Quantize, notes: list[str]) -> bytes:
    """Return what a recipe makes of a file; of one that is too old for it, after a conversion."""
    try:
        return _loadable(_prepared(original, folder, notes), folder, quantize)
    except Exception as error:
        opset = _opset(original)
        if opset >= CURRENT_OPSET:
            raise
        notes[:] = [f"converted from opset {opset} to {CURRENT_OPSET} first: {_first_line(error)}"]
    converted = folder / "converted.onnx"
    onnx.save(version_converter.convert_version(onnx.load(original), CURRENT_OPSET), converted)
    return _loadable(_prepared(converted, folder, notes), folder, quantize)


def _prepared(original: Path, folder: Path, notes: list[str]) -> Path:
    """Return the file after the preparation that the documentation asks for, or as it is where that fails."""
    prepared = folder / PREPARED
    try:
        quant_pre_process(original, prepared, skip_symbolic_shape=True)
    except Exception as error:  # whatever its shape inference stumbles over
        notes.append(f"without its preparation: {_first_line(error)}")
        return original
    return prepared


def _loadable(source: Path, folder: Path, quantize: Quantize) -> bytes:
    target = folder / QUANTIZED
    quantize(source, target)
    content = target.read_bytes()
    open_session(content)
    return content


def _opset(path: Path) -> int:
    opsets = onnx.load(path, load_external_data=False).opset_import
    return max((opset.version for opset in opsets if opset.domain in ("", "ai.onnx")), default=0)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep its tools' advice and progress from the process's output."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
