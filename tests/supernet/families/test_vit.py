"""Vision transformers: one set of weights, its networks taken out, their files, in fp32 and in integers."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hw_profiles.graph.formats import QuantParams
from hw_profiles.graph.layer import Layer, computes_in_integers
from hw_profiles.graph.tensor_type import BATCH, TensorType
from hw_profiles.runtimes.runtime import single_output
from nas.checks.parity import open_file
from nas.emit.to_onnx import emit
from supernet.families.vit import digits_vit
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.saturation import saturated_rows, saturation_error
from supernet.graph.simulate import INTEGERS, Call, simulate
from supernet.graph.subnet import Subnet, recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.space.space import Candidate

FAMILY = digits_vit(in_channels=1, classes=10)
SAMPLES, CALIBRATED = 500, 64
PARITY = 1e-4  # sums in another order, over some twenty layers


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """The supernet, its blocks no identities."""
    net = FAMILY.supernet(rng=np.random.default_rng(0)).eval()
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
    return net


def images(candidate: Candidate, n: int) -> Tensor:
    size = FAMILY.resolution(candidate)
    return torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(1))


def calibrated(net: nn.Module, candidate: Candidate) -> tuple[QuantizedGraph, Tensor]:
    """The network in its own formats, and what it is tried on."""
    x, subnet = images(candidate, SAMPLES), FAMILY.extract(net, candidate).eval()
    return quantize(subnet, FAMILY.workload(candidate), observe(subnet, x[:CALIBRATED])), x


def drawn(n: int) -> list[Candidate]:
    return [FAMILY.space().candidate(row) for row in FAMILY.space().sample(n, rng=np.random.default_rng(2))]


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_supernet_the_subnet_and_the_file_compute_the_same(net: nn.Module, seed: int) -> None:
    row = FAMILY.space().sample(1, rng=np.random.default_rng(seed))[0]
    candidate = FAMILY.space().candidate(row)
    x, subnet, arch = images(candidate, 2), FAMILY.extract(net, candidate).eval(), FAMILY.arch(candidate)
    with torch.no_grad():
        elastic, static = net(x, arch), subnet(x)
    torch.testing.assert_close(static, elastic, atol=1e-6, rtol=1e-5)
    file = open_file(emit(quantize(subnet, FAMILY.plain_workload(arch), observe(subnet, x)), batch=None))
    logits = single_output(file, x.numpy())
    np.testing.assert_allclose(logits, elastic.numpy(), atol=PARITY * float(elastic.abs().max()))


def test_a_narrower_network_has_the_first_heads_and_features(net: nn.Module) -> None:
    small, large = (FAMILY.extract(net, FAMILY.extreme(size)) for size in ("smallest", "largest"))
    for name in ("s0.b0.q", "s0.b0.v", "s0.b0.proj", "s0.b0.fc1", "s0.b0.norm1", "positions", "patch"):
        narrow, wide = (each.layer(name).get_parameter("weight") for each in (small, large))
        assert narrow.shape != wide.shape
        assert torch.equal(narrow, wide[tuple(map(slice, narrow.shape))])


def test_integers_of_the_file_give_the_labels_of_the_simulation(net: nn.Module) -> None:
    largest = np.array(FAMILY.extreme("largest", "int8").genes, np.int16)
    largest[FAMILY.space().columns["resolution"]] = 0
    for candidate in (FAMILY.extreme("smallest", "int8"), FAMILY.space().candidate(largest)):
        assert agreement(*calibrated(net, candidate)) == 1


def test_mixed_formats_give_the_labels_of_the_simulation(net: nn.Module) -> None:
    for candidate in drawn(2):
        assert agreement(*calibrated(net, candidate)) >= 0.995


def test_weights_of_few_bits_are_read_by_kernels_for_real_numbers(net: nn.Module) -> None:
    family = digits_vit(in_channels=1, classes=10, formats=("int8/fp32",))
    candidate = family.extreme("smallest", "int8/fp32")
    x, subnet = images(candidate, 50), family.extract(net, candidate).eval()
    assert agreement(quantize(subnet, family.workload(candidate), observe(subnet, x)), x) == 1


def agreement(network: QuantizedGraph, x: Tensor) -> float:
    """Return how many labels of a file are those of the simulation."""
    logits = single_output(open_file(emit(network, batch=None)), x.numpy())
    same: float = (logits.argmax(1) == simulate(network, x).numpy().argmax(1)).mean()
    return same


def test_every_matrix_of_an_int8_network_runs_on_an_integer_kernel(net: nn.Module, tmp_path: Path) -> None:
    network, _ = calibrated(net, FAMILY.extreme("smallest", "int8"))
    matrices = [layer for layer in network.workload.layers if layer.op == "MatMul" and layer.weighted]
    assert all(map(computes_in_integers, matrices))
    assert kernels(emit(network), tmp_path / "run.onnx")["MatMulIntegerToFloat"] == len(matrices)


def kernels(model: bytes, path: Path) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # it warns that the file is for this machine only
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_without_batch_norms_nothing_is_recalibrated(net: nn.Module) -> None:
    subnet: Subnet = FAMILY.extract(net, FAMILY.extreme("smallest")).train()
    recalibrate(subnet, iter(()))
    assert not subnet.training


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 40))
def test_products_of_tokens_saturate_as_those_of_rows(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.integers(0, 256, (6, k))).float()
    weight = torch.from_numpy(rng.integers(-127, 128, (3, k))).float()
    linear = Layer.of("Gemm", TensorType((BATCH, k, 1, 1)), weight=(3, k))
    of_rows = saturation_error(linear, x[:, :, None, None], weight[:, :, None, None], 0)
    assert torch.equal(saturated_rows(x, weight), of_rows[:, :, 0, 0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.sampled_from([(), (2,), (2, 3)]))
def test_products_of_two_computed_matrices_of_codes(seed: int, batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    codes = [torch.from_numpy(rng.integers(0, 256, (*batch, *size))).float() for size in ((4, 5), (5, 3))]
    params = (QuantParams(0.02, 3), QuantParams(0.5, 200))
    layer = Layer.of("MatMul", *(TensorType(tuple(x.shape), "int8") for x in codes), to="fp32")
    (y,) = INTEGERS["MatMul"](Call(layer, codes, params, None, None, saturating=False))
    left, right = ((x.double() - p.zero_point) * p.scale for x, p in zip(codes, params, strict=True))
    torch.testing.assert_close(y.double(), left @ right, rtol=1e-6, atol=1e-6)
