"""Weights of a network in integers only, fitted to what its integers say: what curves of shifts and 8 bits
get wrong in the same way each time, the next product takes back.

Layer by layer in their order, so that each fit knows the ones before. A matrix gets the weights with which
what it reads in integers gives what it gives in real numbers, by ridge regression towards its own (as
reconstruction layer by layer in Hubara et al. 2020, arXiv:2006.10518), and a convolution its bias (Nagel et
al. 2019, arXiv:1906.04721). How far weights may move is what predicts examples best that a fit has not seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.counts import macs
from hw_profiles.graph.integer_only import is_product_of_two
from hw_profiles.graph.layer import FP32, INPUT, MATRIX, Layer
from hw_profiles.reference.integer_ops import run_network, run_unit
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.reference.unit_numbers import UnitNumbers
from supernet.formats.loading import load_weight_format
from supernet.graph.quantized_graph import Parameters, QuantizedGraph
from supernet.graph.unit_numbers import numbers_of, unit_numbers

Array = NDArray[Any]
Folded = Callable[[str], tuple[Array, Array]]  # a layer's real weight, and bias, by its name

WORK = 4e8  # multiply-adds in plain numpy: some seconds
FEWEST, MOST = 8, 64  # examples
FOLDS = 4
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, np.inf)  # in shares of the mean square of what is read
MOST_FEATURES = 1024  # of what a matrix reads: its inverse takes seconds


@dataclass(frozen=True, eq=False)
class _Fit:
    """A matrix (out, in) and an offset (out,)."""

    weight: Array
    offset: Array

    def error(self, x: Array, y: Array) -> float:
        """Return the sum of squared errors of (rows, in) that should give (rows, out)."""
        return float(np.square(x @ self.weight.T + self.offset - y).sum())


def refitted(
    network: QuantizedGraph,
    inputs: Array,
    values: Mapping[str, Array],
    folded: Folded,
    sums: IntegerSums = IntegerSums.EXACT,
) -> QuantizedGraph:
    """Return a network in integers only with weights and biases fitted to examples, with biases alone, or as
    it is: whichever gives answers nearest to real ones on examples that no fit has seen.

    Args:
        inputs: (n, ...) examples as the network reads them; as many of them as there is time for are used.
        values: (n, ...) what each layer gives in real numbers, by its name.
        folded: a layer's real weight and bias.
        sums: of the device that it is made for.
    """
    work = network.workload
    affordable = int(np.clip(WORK / sum(int(macs(layer)) for layer in work.layers), FEWEST, MOST))
    seen = min(affordable, len(inputs) * 2 // 3)
    examples = list(np.moveaxis(inputs, 1, -1) if inputs.ndim > MATRIX + 1 else inputs)
    unseen = slice(seen, seen + max(seen // 2, 1))
    answers = values[work.names[-1]][unseen]

    def error(made: QuantizedGraph) -> float:
        numbers = unit_numbers(made)
        given = [run_network(work, numbers, example).ravel() for example in examples[unseen]]
        return float(np.square(np.array(given) - answers.reshape(len(answers), -1)).sum())

    made = [network]
    if seen:
        made += [
            _fitted(network, examples[:seen], values, folded, sums, penalties)
            for penalties in ((np.inf,), PENALTIES)
        ]
    return min(made, key=error)


def _fitted(
    network: QuantizedGraph,
    examples: Sequence[Array],
    values: Mapping[str, Array],
    folded: Folded,
    sums: IntegerSums,
    penalties: Sequence[float],
) -> QuantizedGraph:
    """Return a network fitted to examples as they lie in memory, with the best of some penalties each."""
    work = network.workload
    tensors: list[list[Array]] = []
    for position, (name, layer) in enumerate(zip(work.names, work.layers, strict=True)):
        read = [examples if source == INPUT else tensors[source] for source in work.inputs[position]]
        rows = [tuple(arrays) for arrays in zip(*read, strict=True)]
        if layer.weighted and layer.op != "Gather" and layer.activation == "none":
            numbers, parameters = numbers_of(network, position), network.parameters[name]
            targets = _by_rows(values[name][: len(rows)], maps=layer.op == "Conv")
            if _is_matrix(layer):
                x = np.concatenate([_features(layer, numbers, array) for (array,) in rows])
                parameters = _matrix(layer, parameters, folded(name), x, targets, sums, penalties)
            else:
                given = np.concatenate([_by_channel(_real(layer, numbers, row)) for row in rows])
                parameters = _moved(parameters, (targets - given).mean(axis=0))
            network = replace(network, parameters={**network.parameters, name: parameters})
        numbers = numbers_of(network, position)
        tensors.append([run_unit(layer, numbers, row) for row in rows])
    return network


def _is_matrix(layer: Layer) -> bool:
    """Return whether a layer is a product with a stored matrix of few enough features."""
    if layer.op not in ("MatMul", "Gemm") or is_product_of_two(layer):
        return False
    return min(layer.values.integers("weight")) <= MOST_FEATURES


def _features(layer: Layer, numbers: UnitNumbers, codes: Array) -> Array:
    """Return (rows, in) real values of the codes that a matrix reads."""
    x = codes.transpose(2, 0, 1).reshape(1, -1) if layer.op == "Gemm" else codes.reshape(-1, codes.shape[-1])
    return np.asarray((x.astype(np.float64) - numbers.input().zero_point) * numbers.scale_of())


def _by_rows(values: Array, *, maps: bool) -> Array:
    """Return (n, ..., out) real values, or maps (n, out, h, w), as (rows, out)."""
    ordered = np.moveaxis(values, 1, -1) if maps else values
    return ordered.reshape(-1, ordered.shape[-1]).astype(np.float64)


def _by_channel(values: Array) -> Array:
    return values.reshape(-1, values.shape[-1]).astype(np.float64)


def _real(layer: Layer, numbers: UnitNumbers, inputs: Sequence[Array]) -> Array:
    """Return what a weighted layer gives before that is rounded."""
    stated = {**dict(layer.attributes), "to": FP32}
    return run_unit(replace(layer, attributes=tuple(sorted(stated.items()))), numbers, inputs)


def _moved(parameters: Parameters, offset: Array) -> Parameters:
    bias = parameters.bias if len(parameters.bias) else np.zeros(len(offset), np.float32)
    return replace(parameters, bias=(bias + offset).astype(np.float32))


def _matrix(
    layer: Layer,
    parameters: Parameters,
    own: tuple[Array, Array],
    x: Array,
    y: Array,
    sums: IntegerSums,
    penalties: Sequence[float],
) -> Parameters:
    """Return the parameters with which x (rows, in) gives y (rows, out) best."""
    first = own[0].reshape(len(own[0]), -1).astype(np.float64)
    fold = np.arange(len(x)) * FOLDS // len(x)

    def unseen(penalty: float) -> float:
        return sum(
            _ridge(first, x[fold != k], y[fold != k], penalty).error(x[fold == k], y[fold == k])
            for k in range(FOLDS)
        )

    best = min(penalties, key=unseen) if len(penalties) > 1 else penalties[0]
    fitted = _ridge(first, x, y, best)
    encode = load_weight_format(layer.weight_format, sums).encode
    weight = encode(fitted.weight.astype(np.float32).reshape(own[0].shape))
    rounded = weight.codes.reshape(first.shape) * weight.channel_scales[:, None].astype(np.float64)
    return Parameters(weight, (y - x @ rounded.T).mean(axis=0).astype(np.float32))


def _ridge(first: Array, x: Array, y: Array, penalty: float) -> _Fit:
    """Return the least squares of x to y, penalised by how far the matrix is from its first one."""
    mean, rest = x.mean(axis=0), y - x @ first.T
    if np.isinf(penalty):
        return _Fit(first, rest.mean(axis=0))
    centred = x - mean
    gram = centred.T @ centred
    ridge = max(penalty * float(np.trace(gram)) / len(gram), np.finfo(np.float64).tiny)
    moved = np.linalg.solve(gram + ridge * np.eye(len(gram)), centred.T @ (rest - rest.mean(axis=0))).T
    return _Fit(first + moved, rest.mean(axis=0) - moved @ mean)
