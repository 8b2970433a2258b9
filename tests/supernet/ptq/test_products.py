"""Rows times the stored matrix are what ONNX Runtime computes, whatever the convolution or product."""

import numpy as np
import pytest

from hw_profiles.runtimes.ort.runtime import open_session
from supernet.imported.model import ImportedModel
from supernet.ptq.products import read_products
from tests.supernet.ptq.imported_models import imported_model, node

EVERY_ROW = 10**6
# (shape of the input, of the weight, attributes)
CONVOLUTIONS = {
    "pointwise": ((1, 4, 5, 5), (6, 4, 1, 1), {}),
    "asymmetric pads": ((2, 3, 7, 8), (4, 3, 3, 3), {"pads": [0, 1, 1, 0], "strides": [2, 2]}),
    "depthwise": ((1, 4, 6, 6), (4, 1, 3, 3), {"group": 4, "pads": [1] * 4}),
    "two filters a channel": ((1, 4, 6, 6), (8, 1, 3, 3), {"group": 4}),
    "grouped, dilated": ((1, 4, 9, 9), (6, 2, 3, 3), {"group": 2, "dilations": [2, 3]}),
    "one dimension": ((1, 3, 12), (4, 3, 5), {"pads": [2, 3], "strides": [3]}),
    "three dimensions": ((1, 2, 5, 6, 7), (3, 2, 3, 2, 1), {"pads": [1, 0, 0, 0, 1, 2]}),
    "same upper": ((1, 3, 8, 8), (4, 3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((1, 3, 8, 7), (4, 3, 4, 3), {"auto_pad": "SAME_LOWER"}),
    "valid": ((1, 3, 8, 7), (4, 3, 4, 3), {"auto_pad": "VALID"}),
}
PRODUCTS = {
    "gemm": ("Gemm", (3, 5), (5, 4), (4,), {}),
    "gemm, transposed": (
        "Gemm",
        (5, 3),
        (4, 5),
        (1, 4),
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    "gemm, one number as bias": ("Gemm", (3, 5), (5, 4), (1,), {}),
    "matmul": ("MatMul", (2, 3, 5), (5, 4), (), {}),
}


def difference(model: ImportedModel, x: np.ndarray) -> float:
    """Largest difference between the product of all rows and ONNX Runtime's output."""
    (product,) = read_products(model).values()
    (exact,) = open_session(model.content).run(None, {"x": x})
    rows = product.rows_of(x, EVERY_ROW, np.random.default_rng(0))
    result = product.activated(product.sums(rows) + product.bias)
    channels_last = exact if product.window is None else np.moveaxis(exact, 1, -1)
    return float(np.abs(result - channels_last.reshape(result.shape)).max())


def test_convolutions_are_products_of_patches() -> None:
    rng, differences = np.random.default_rng(0), {}
    for name, (shape, weight, attributes) in CONVOLUTIONS.items():
        constants = {
            "w": rng.normal(size=weight).astype(np.float32),
            "b": rng.normal(size=weight[0]).astype(np.float32),
            "zero": np.array(0, np.float32),
            "six": np.array(6, np.float32),
        }
        nodes = [
            node("Conv", ["x", "w", "b"], "sum", **attributes),
            node("Clip", ["sum", "zero", "six"], "y"),
        ]
        model = imported_model(nodes, constants, {"x": shape}, ["y"])
        differences[name] = difference(model, rng.normal(size=shape).astype(np.float32) * 2)
    assert max(differences.values()) < 1e-4, differences


def test_matrix_products_are_products_of_rows() -> None:
    rng, differences = np.random.default_rng(1), {}
    for name, (op, shape, weight, bias, attributes) in PRODUCTS.items():
        constants = {"w": rng.normal(size=weight).astype(np.float32)}
        inputs = ["x", "w"]
        if bias:
            constants["b"] = rng.normal(size=bias).astype(np.float32)
            inputs.append("b")
        model = imported_model([node(op, inputs, "y", **attributes)], constants, {"x": shape}, ["y"])
        differences[name] = difference(model, rng.normal(size=shape).astype(np.float32))
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize("shape", [(3, 5), (4, 3, 5)])
def test_what_is_no_product_of_rows_is_left_out(shape: tuple[int, ...]) -> None:
    """A stored matrix on the left, and a batch of stored matrices."""
    left = len(shape) == 2
    constants = {"w": np.ones((2, 3) if left else (4, 5, 2), np.float32)}
    inputs = ["w", "x"] if left else ["x", "w"]
    model = imported_model([node("MatMul", inputs, "y")], constants, {"x": shape}, ["y"])
    assert not read_products(model)


def test_a_few_rows_are_some_of_all() -> None:
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(1, 3, 9, 9)).astype(np.float32), rng.normal(size=(2, 3, 3, 3)).astype(np.float32)
    model = imported_model([node("Conv", ["x", "w"], "y")], {"w": w}, {"x": x.shape}, ["y"])
    (product,) = read_products(model).values()
    every = product.rows_of(x, EVERY_ROW, rng)[0]
    few = product.rows_of(x, 10, np.random.default_rng(3))[0]
    assert len({tuple(row) for row in few}) == 10
    assert {tuple(row) for row in few} <= {tuple(row) for row in every}
