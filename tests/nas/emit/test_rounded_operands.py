"""Linear layers whose product rounds what it reads: ONNX Runtime and the simulation compute the same."""

import numpy as np
import torch

from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import single
from hw_profiles.runtimes.ort.runtime import MORE_INTEGER_OPS, optimised_ops
from nas.emit.to_onnx import emit, random_network
from supernet.formats.loading import load_format
from supernet.graph.simulate import simulate
from supernet.registry import FORMATS
from tests.nas.emit.handmade import run

TOLERANCE = 1e-5  # of the largest output: sums are made in another order
UNROUNDED = 3  # how many times nearer the simulation is than the product of the operand as it is


def test_linear_layers_compute_what_their_format_says() -> None:
    x = np.random.default_rng(0).standard_normal((1, 200, 1, 1)).astype(np.float32)
    names = [name for name in FORMATS if load_format(name).weight.operand is not None]
    assert len(names) == 5
    for name in names:
        work = single(map_layer("linear", (200, 1, 1), 48, weight_format=name))
        network = random_network(work, rng=np.random.default_rng(1))
        content = emit(network)
        kernels = optimised_ops(content)
        assert any(kernels[kind] for kind in MORE_INTEGER_OPS)
        assert not kernels["Gemm"]
        (output,) = run(content, {"image": x}).values()
        simulated = simulate(network, torch.from_numpy(x)).numpy()
        (parameters,) = network.parameters.values()
        weight = load_format(name).weight.decode(parameters.weight)
        plain = x.reshape(1, -1) @ weight.T + parameters.bias
        error = np.abs(output - simulated.reshape(output.shape)).max()
        assert error <= TOLERANCE * np.abs(output).max(), name
        assert error * UNROUNDED <= np.abs(output - plain).max(), name
