"""LiteRT's own post-training quantization (`ai-edge-quantizer`), by the recipes that its package ships: what
the files of a tuned network are compared with.

Each runs in a process of its own (`nas.checks.confined`), on somebody's file and on examples of what that
reads.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.litert.conversion import TO_LAST
from hw_profiles.runtimes.litert.flat_file import SIGNATURE, channels_first
from hw_profiles.runtimes.litert.to_tflite import to_tflite
from hw_profiles.runtimes.runtime import Array, Arrays

Answer = tuple[dict[str, Any], dict[str, Array]]
THREADS = 1


def static_int8(request: Mapping[str, Any], **arrays: Array) -> Answer:
    """Return what the recipe for static int8 makes of the ONNX file at `path`: int8 activations by minimum
    and maximum, int8 weights with a scale per channel, of every operator that has kernels for these.

    Args:
        request: `path` of the file, `names` of its inputs.
        arrays: (n, ...) examples of each input, as `input_0` and so on.

    Raises:
        Exception: whatever the converter or LiteRT's quantizer refuses.
    """
    names = request["names"]
    return _quantized("static_wi8_ai8", request, {name: arrays[f"input_{i}"] for i, name in enumerate(names)})


def dynamic_range(request: Mapping[str, Any], **arrays: Array) -> Answer:
    """Return what the recipe for dynamic range makes of the ONNX file at `path`: int8 weights, activations
    rounded at each inference.

    Args:
        request, arrays: see `static_int8`.

    Raises:
        Exception: whatever the converter or LiteRT's quantizer refuses.
    """
    names = request["names"]
    return _quantized(
        "dynamic_wi8_afp32", request, {name: arrays[f"input_{i}"] for i, name in enumerate(names)}
    )


def _quantized(recipe: str, request: Mapping[str, Any], examples: Arrays) -> Answer:
    with _silent():
        try:
            from ai_edge_quantizer import qtyping, quantizer
            from ai_edge_quantizer import recipe as recipes
            from ai_edge_quantizer.algorithm_manager import AlgorithmName
        except ModuleNotFoundError:
            raise TrilobitError(
                "the package ai-edge-quantizer is not installed: pip install 'trilobit[litert]'"
            ) from None
        sizes = {name: array.shape[1:] for name, array in examples.items()}
        content = to_tflite(Path(request["path"]).read_bytes(), sizes)
        tool = quantizer.Quantizer(content)
        tool.load_quantization_recipe(getattr(recipes, recipe)())
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            # what is read and given stays what it was: files are compared by these
            tool.update_quantization_recipe(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
        ranges = None
        if tool.need_calibration:
            feeds = list(_feeds(examples, channels_first(content)))
            ranges = tool.calibrate({SIGNATURE: feeds}, num_threads=THREADS)
        result = tool.quantize(ranges, enable_progress_report=False)
    return {"notes": []}, {"model": np.frombuffer(bytes(result.quantized_model), np.uint8)}


def _feeds(examples: Arrays, turned: frozenset[str]) -> Iterator[dict[str, Array]]:
    """Yield examples one at a time, as the file reads them."""
    for row in range(len(next(iter(examples.values())))):
        yield {name: _turned(array[row], name in turned) for name, array in examples.items()}


def _turned(array: Array, last: bool) -> Array:
    return np.ascontiguousarray(array.transpose(TO_LAST) if last else array)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep its tools' advice and progress from the process's output."""
    logging.disable(logging.WARNING)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
