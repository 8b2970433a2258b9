"""Checks through the file itself: its predictions, its accuracy, and which kernels ONNX Runtime really
runs.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.layer import FLOATS
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.ort.runtime import outputs, takes_bytes
from nas.checks.check import DisagreementError
from nas.checks.probe import INTEGER_OPS, optimised_ops
from nas.checks.sums import open_exactly
from supernet.data.dataset import Dataset, resized, to_batch
from supernet.data.images import Images
from supernet.graph.quantized_graph import Network
from supernet.tasks.evaluate import simulated_predictions

AGREEMENT = (
    0.995  # share of equal predictions that a file must reach: a code may round the other way on a tie
)


def file_predictions(model: bytes | Path, images: Images, dataset: Dataset) -> NDArray[np.int64]:
    """(n,) labels that the ONNX file predicts, in batches of the size it was made for."""
    session = open_exactly(model)
    pixels = takes_bytes(session)
    size = session.get_inputs()[0].shape[1 if pixels else -1]
    return np.asarray(outputs(session, input_of(images, dataset, size=size, pixels=pixels)).argmax(axis=1))


def input_of(images: Images, dataset: Dataset, *, size: int, pixels: bool) -> NDArray[Any]:
    """Return images as a file takes them: (n, size, size, c) pixels, or normalised (n, c, size, size)."""
    if pixels:
        return resized(images, size)
    normalised: NDArray[Any] = to_batch(images, dataset, size).contiguous().numpy()
    return normalised


def file_accuracy(model: bytes | Path, images: Images, dataset: Dataset) -> float:
    """Share of right labels of the ONNX file, in 0..1."""
    return float((file_predictions(model, images, dataset) == images.labels).mean())


@dataclass(frozen=True)
class Parity:
    """Whether a file does what was asked for.

    Attributes:
        agreement: share of images on which file and simulation predict the same label.
        images: how many were compared.
        integer_layers: layers that the policy puts on integer kernels.
        integer_kernels: integer kernels in the optimised graph.
    """

    agreement: float
    images: int
    integer_layers: int
    integer_kernels: int


def check_parity(model: bytes, network: Network, images: Images, dataset: Dataset) -> Parity:
    """Compare the file with the simulation, and its optimised graph with the policy.

    Raises:
        DisagreementError: they predict differently on more than 0.5 % of the images, or ONNX Runtime runs a
            layer in another format than the policy says.
    """
    expected = expected_kernels(network.workload)
    found = optimised_ops(model)
    for op, count in expected.items():
        if found[op] != count:
            raise DisagreementError(
                f"ONNX Runtime runs {found[op]} {op} kernels where the policy asks for {count}"
            )
    agreement = float(
        (file_predictions(model, images, dataset) == simulated_predictions(network, images, dataset)).mean()
    )
    if agreement < AGREEMENT:
        raise DisagreementError(
            f"file and simulation agree on {agreement:.2%} of {len(images)} images, below {AGREEMENT:.1%}"
        )
    return Parity(
        agreement, len(images), sum(expected[op] for op in INTEGER_OPS), sum(found[op] for op in INTEGER_OPS)
    )


def expected_kernels(workload: Workload) -> Counter[str]:
    """How many kernels of each kind the optimised graph must have, by ONNX Runtime's names."""
    integer = {
        "stem": "QLinearConv",
        "conv": "QLinearConv",
        "add": "QLinearAdd",
        "add_converted": "QLinearAdd",
        "linear": "QGemm",
        "pool": "QLinearGlobalAveragePool",
        "mul": "QLinearMul",
        "avgpool": "QLinearAveragePool",
    }
    counts: Counter[str] = Counter(dict.fromkeys(INTEGER_OPS, 0))
    counts["Conv"] = 0
    for layer in lower(workload).layers:
        if layer.activation_format not in FLOATS and layer.op in integer:
            counts[integer[layer.op]] += 1
        elif layer.op in ("stem", "conv"):
            counts["Conv"] += 1
    return counts
