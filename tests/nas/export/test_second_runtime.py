"""The same files in OpenVINO: another engine, which reads ONNX by code of its own.

What was found with OpenVINO 2026.4.1: it reads opsets 21 and 25, packed 4-bit weights behind a Cast, and half
precision; it has no 2-bit type. It computes real layers in bfloat16 where the processor can, unless told not
to. It fuses QuantizeLinear into its kernels as a multiplication and a rounding of its own, so that codes
differ by one here and there and logits by 1 % of the largest; behind a Clip, which is how codes of fewer bits
are written, it does not.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.runtimes.runtime import single_output
from nas.checks.parity import open_file
from nas.emit.to_onnx import Normalisation, emit
from supernet.families.family import Family, load_family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.evaluate import build_network, calibration_examples
from supernet.tasks.image_classification import ImageClassification
from supernet.train.loop import TrainConfig, load_supernet, train

pytestmark = pytest.mark.slow

SAME_LABELS = 0.98  # the two best logits of the others are closer than the codes that differ
SAME_LOGITS = 0.03  # of the largest: a code or two out of 255
FLOAT_LOGITS = 1e-5  # of the largest: another order of summation
FORMATS = ("fp32", "int8", "int6", "int4", "int2", "int8/int6")
EPOCHS = 3  # enough that few images lie between two classes


@pytest.fixture(scope="module")
def openvino() -> Any:
    """The engine, without the part of its package that writes an id to the home folder and sends events."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "openvino_telemetry", None)
        return pytest.importorskip("openvino")


def train_and_build(
    formats: tuple[str, ...], data: ImageClassification, path: Path
) -> tuple[Family, Callable[[str], QuantizedGraph]]:
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=formats)
    list(train(family, data, TrainConfig(epochs=EPOCHS, random_subnets=0), path, seed=0))
    net, calibration = load_supernet(family, path), calibration_examples(data, seed=0)
    corners = family.extremes()
    return family, lambda corner: build_network(family, net, corners[corner], data, calibration)


@pytest.fixture(scope="module")
def built(
    digits: ImageClassification, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], QuantizedGraph]:
    """The largest network in a format, with trained weights."""
    folder = tmp_path_factory.mktemp("trained")
    _, integer = train_and_build(FORMATS, digits, folder / "integer.pt")
    _, half = train_and_build(("fp32", "fp16"), digits, folder / "half.pt")
    return lambda fmt: (half if fmt == "fp16" else integer)(f"largest/{fmt}")


def through(openvino: Any, model: bytes, images: np.ndarray) -> np.ndarray:
    """(n, classes) logits, one image at a time."""
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model, b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled([image[None]])[0] for image in images])


@pytest.mark.parametrize(
    ("fmt", "labels", "logits"),
    [
        ("fp32", 1.0, FLOAT_LOGITS),
        ("fp16", 1.0, FLOAT_LOGITS),
        ("int8", SAME_LABELS, SAME_LOGITS),
        ("int6", SAME_LABELS, SAME_LOGITS),
        ("int4", SAME_LABELS, SAME_LOGITS),
        ("int8/int6", SAME_LABELS, SAME_LOGITS),
    ],
)
def test_a_file_answers_alike(
    openvino: Any,
    built: Callable[[str], QuantizedGraph],
    digits: ImageClassification,
    fmt: str,
    labels: float,
    logits: float,
) -> None:
    network = built(fmt)
    model, part = emit(network), digits.validation
    images = digits.inputs(part, network.workload.in_shape[1]).contiguous().numpy()
    wanted, found = single_output(open_file(model), images), through(openvino, model, images)
    assert np.abs(found - wanted).max() <= logits * np.abs(wanted).max()
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= labels
    assert (found.argmax(axis=1) == part.labels).mean() > 2 / len(digits.classes)


def test_pixels_and_an_open_batch_are_read_too(
    openvino: Any, built: Callable[[str], QuantizedGraph], digits: ImageClassification
) -> None:
    network = built("fp32")
    model = emit(network, batch=None, pixels=Normalisation(digits.mean, digits.std))
    size = network.workload.in_shape[1]
    pixels = digits.validation.pixels[:20, :size, :size]
    wanted, found = single_output(open_file(model), pixels), through(openvino, model, pixels)
    assert np.abs(found - wanted).max() <= FLOAT_LOGITS * np.abs(wanted).max()


def test_2_bit_weights_are_not_read(openvino: Any, built: Callable[[str], QuantizedGraph]) -> None:
    """So that it is noticed, and said, when they are."""
    with pytest.raises(RuntimeError, match="Unsupported data type INT2"):
        openvino.Core().read_model(emit(built("int2")), b"")
