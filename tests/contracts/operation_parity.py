"""One network in torch, in ONNX's reference and in both forms of files."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.formats import WHOLE
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.tensor_type import Dim, TensorType
from hw_profiles.graph.workload import Feed, Workload
from nas.emit.to_onnx import emit, random_network
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate_all

Arrays = dict[str, NDArray[Any]]
IDS = "int64"


def network(*feeds: TensorType, op: str, **attributes: Any) -> QuantizedGraph:
    """One operation, with random numbers."""
    net = GraphBuilder(feeds=[Feed(f"x{i}", each) for i, each in enumerate(feeds)])
    first = net.op("op", op, *net.inputs, **attributes)
    outputs = range(first, first + len(Layer.of(op, *feeds, **attributes).outputs))
    return random_network(net.build(*outputs), rng=np.random.default_rng(0))


def numbers(work: Workload, seed: int = 0, below: int = 2) -> Arrays:
    """Random numbers for what a network reads; whole ones are `below` something."""
    rng, made = np.random.default_rng(seed), {}
    for feed in work.feeds:
        shape = [int(dim) for dim in feed.type.shape]
        whole = feed.type.format in WHOLE
        values = rng.integers(0, below, shape) if whole else rng.standard_normal(shape)
        made[feed.name] = values.astype(feed.type.format if whole else np.float32)
    return made


def in_torch(network: QuantizedGraph, feeds: Arrays) -> list[NDArray[Any]]:
    return [y.numpy() for y in simulate_all(network, [torch.from_numpy(x) for x in feeds.values()])]


def in_file(content: bytes, feeds: Arrays) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs: list[NDArray[Any]] = session.run(None, feeds)
    return outputs


def agree(network: QuantizedGraph, feeds: Arrays, *, reference: bool = True) -> list[NDArray[Any]]:
    """Check that all ways give the same, and return it."""
    computed_here = in_torch(network, feeds)
    files = {portable: emit(network, batch=None, portable=portable) for portable in (False, True)}
    given_by = {f"file, portable {portable}": in_file(file, feeds) for portable, file in files.items()}
    if reference:
        given_by["reference"] = ReferenceEvaluator(onnx.load_from_string(files[False])).run(None, feeds)
    for name, outputs in given_by.items():
        for y, expected, known in zip(outputs, computed_here, network.workload.outputs, strict=True):
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5, err_msg=name)
            assert y.shape == network.workload.type_of(known).shape
    return computed_here


def x(*shape: Dim, fmt: str = "fp32") -> TensorType:
    return TensorType(shape, fmt)
