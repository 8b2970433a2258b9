"""The whole kit on EfficientNet-Lite0: calibrated on left halves of photographs, judged on the right ones."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from hw_profiles.runtimes.ort.runtime import open_session
from nas.emit.rewrite_onnx import rewrite
from supernet.data.samples import Samples
from supernet.formats.loading import load_weight_format
from supernet.graph.quantized_graph import Parameters
from supernet.imported.import_onnx import import_onnx
from supernet.ptq.observation import observe
from supernet.ptq.products import output_bounds, read_nodes, read_products
from supernet.ptq.quantization import Quantization
from supernet.ptq.quantize_model import quantize_model
from supernet.ptq.ranges import params_within
from supernet.ptq.settings import PtqSettings
from tests.published_data import DataFile

CALIBRATED, JUDGED = 32, 48
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def crops(photographs: list[np.ndarray], n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 1, 3, 224, 224) squares of different sizes, of each in turn."""
    made = []
    for i in range(n):
        photograph = photographs[i % len(photographs)]
        size = int(rng.integers(160, min(photograph.shape[:2])))
        top, left = (int(rng.integers(side - size)) for side in photograph.shape[:2])
        square = Image.fromarray(photograph[top : top + size, left : left + size]).resize((224, 224))
        pixels = (np.asarray(square, np.float32) / 255 - MEAN) / DEVIATION
        made.append(pixels.transpose(2, 0, 1)[None].astype(np.float32))
    return np.stack(made)


def probabilities(content: bytes, samples: Samples) -> np.ndarray:
    session = open_session(content)
    logits = np.concatenate([session.run(None, samples.feed(i))[0] for i in range(len(samples))])
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
    return shifted / shifted.sum(axis=1, keepdims=True)


def divergence(exact: np.ndarray, given: np.ndarray) -> float:
    return float((exact * np.log(exact / given)).sum(axis=1).mean())


def uniform(quantization: Quantization, calibration: Samples) -> Quantization:
    """The same tensors by least and largest value, weights to nearest, biases as they were."""
    model = quantization.model
    nodes, products = read_nodes(model), read_products(model)
    tensors = tuple(quantization.tensors)
    seen = observe(
        model, calibration, tensors, {}, rng=np.random.default_rng(0), settings=PtqSettings()
    ).tensors
    bounds = {name: output_bounds(model, unit, nodes) for unit in model.units for name in unit.outputs}
    free = (-np.inf, np.inf)
    return Quantization(
        model,
        {name: params_within(seen[name].low, seen[name].high, bounds.get(name, free)) for name in tensors},
        {
            (name, "int8"): Parameters(load_weight_format("int8").encode(product.stored), product.bias)
            for name, product in products.items()
        },
    )


@pytest.mark.slow
def test_the_kit_at_least_halves_the_divergence_of_uniform_int8(data_file: DataFile) -> None:
    model = import_onnx(data_file("models/efficientnet_lite0.onnx"))
    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    (name,) = model.inputs
    calibration = Samples({name: crops([each[:, :320] for each in photographs], CALIBRATED, rng)})
    judging = Samples({name: crops([each[:, 320:] for each in photographs], JUDGED, rng)})
    policy = {unit.name: "int8" for unit in model.units if unit.weighted}
    formats = {unit: ("fp32", "int8") for unit in policy}
    kit = quantize_model(model, calibration, formats, rng=np.random.default_rng(1))
    exact = probabilities(model.content, judging)
    plain, better = (
        divergence(exact, probabilities(rewrite(each, policy), judging))
        for each in (uniform(kit, calibration), kit)
    )
    assert better < 0.5 * plain, (better, plain)
