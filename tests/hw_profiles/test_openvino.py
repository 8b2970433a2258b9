"""OpenVINO as a runtime: what it computes, what it says of that, and what it is kept from doing."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer, changed, map_layer
from hw_profiles.graph.tensor_type import TensorType
from hw_profiles.graph.workload import Workload, single
from hw_profiles.runtimes.plugin import choice_of, choose, open_device
from hw_profiles.runtimes.runtime import Artifact, single_output
from nas.checks.parity import open_file
from nas.emit.to_onnx import emit, random_network
from supernet.families.family import load_family
from supernet.graph.simulate import simulate

pytest.importorskip("openvino")

from hw_profiles.runtimes.openvino.compiled import CompiledFiles
from hw_profiles.runtimes.openvino.options import OpenVinoOptions
from hw_profiles.runtimes.openvino.runtime import OpenVinoRuntime, core

ROOT = Path(__file__).parents[2]
TIES = 1e-3  # of codes: sums that lie between two of them


@pytest.fixture(scope="module")
def runtime() -> OpenVinoRuntime:
    return OpenVinoRuntime()


def network(work: Workload) -> bytes:
    return emit(random_network(work, rng=np.random.default_rng(0)))


def alone(layer: Layer) -> Workload:
    """A layer with what converts an image to the format that it reads."""
    net = WorkloadBuilder(layer.in_shape)
    net.add("layer", layer, INPUT)
    return net.build()


def answers(
    runtime: OpenVinoRuntime, model: bytes, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What OpenVINO and what ONNX Runtime say of the same noise."""
    noise = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return single_output(runtime.compile(Artifact(model)), noise), single_output(open_file(model), noise)


@pytest.mark.parametrize(
    "fields",
    [
        ("stem", (3, 12, 12), 16, 3, 2, 1, "relu"),
        ("conv", (16, 8, 8), 32, 1, 1, 1, "none"),
        ("conv", (32, 8, 8), 32, 3, 1, 32, "relu"),
    ],
    ids=("dense", "pointwise", "depthwise"),
)
def test_codes_of_a_layer_are_those_of_onnx_runtime(runtime: OpenVinoRuntime, fields: Any) -> None:
    model = network(alone(map_layer(*fields, "int8", "int8")))
    ours, theirs = answers(runtime, model, (8, *fields[1]))
    assert len(np.unique(ours)) > 20
    assert (ours != theirs).mean() < TIES
    assert runtime.compile(Artifact(model)).kernels()["Convolution_I8"] == 1
    plain = runtime.compile(Artifact(network(alone(map_layer(*fields))))).kernels()
    assert (plain["Convolution_f32"], plain["Convolution_I8"]) == (1, 0)


def test_weights_for_size_only_are_multiplied_with_real_numbers(runtime: OpenVinoRuntime) -> None:
    """Left to itself it would round what such a product reads to 8 bits."""
    layer = changed(map_layer("linear", (320, 1, 1), 10), weight_format="int8")
    ours, theirs = answers(runtime, network(single(layer)), (1, 320, 1, 1))
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def product(weight: str) -> bytes:
    layer = Layer.of("MatMul", TensorType((1, 8, 256)), weight_format=weight, weight=(256, 128), to="fp32")
    return network(single(layer))


@pytest.mark.parametrize(
    ("weight", "codes"), [("int4-g32", "u4"), ("int4", "i4"), ("int8-g128", "u8"), ("int2-g128", "u2")]
)
def test_a_product_reads_weights_in_the_bits_that_they_are_stored_in(
    runtime: OpenVinoRuntime, weight: str, codes: str
) -> None:
    """Spelled out before, they would save nothing: what the executed graph holds are codes."""
    graph = CompiledFiles(core(), runtime.options).anew(product(weight)).get_runtime_model()
    nodes = {node.get_friendly_name(): node.get_rt_info() for node in graph.get_ordered_ops()}
    said = [{key: str(value.astype(str)) for key, value in info.items()} for info in nodes.values()]
    stored = {each["outputPrecisions"] for each in said if each["layerType"] == "Const"}
    assert codes in stored
    assert {each["layerType"] for each in said} == {"Input", "Const", "FullyConnected", "Output"}


@pytest.mark.skipif(
    "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="a processor with bf16"
)
def test_a_precision_is_what_layers_compute_in() -> None:
    half = OpenVinoRuntime(OpenVinoOptions(precision="bf16"))
    work = alone(map_layer("conv", (16, 8, 8), 32))
    ours, theirs = answers(half, network(work), (1, 16, 8, 8))
    assert 2**-12 < np.abs(ours - theirs).max() / np.abs(theirs).max() < 2**-5
    assert half.compile(Artifact(network(work))).kernels()["Convolution_bf16"] == 1
    assert half.compile(Artifact(product("int4-g32"))).kernels()["FullyConnected_bf16"] == 1


def test_networks_run_on_the_kernels_that_are_expected(runtime: OpenVinoRuntime) -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32", "int8", "int4"))
    space = family.space()
    for genome in space.sample(3, rng=np.random.default_rng(0)):
        work = family.workload(space.candidate(genome))
        executable = runtime.compile(Artifact(network(work)))
        kernels, expected = executable.kernels(), runtime.expected_kernels(work)
        assert {kind: kernels[kind] for kind in expected} == expected
        named = executable.named_kernels()
        names = [name for name, layer in zip(work.names, work.layers, strict=True) if layer.op == "Conv"]
        assert {named[name].partition("_")[0] for name in names} == {"Convolution"}


def test_a_sum_is_not_rounded_before_it_is_added(runtime: OpenVinoRuntime) -> None:
    """It says of which convolutions that is so, and the simulation of that gives its codes."""
    shape = (16, 8, 8)
    net = WorkloadBuilder(shape)
    x = net.add("first", map_layer("conv", shape, 16, 1, 1, 1, "relu", "int8", "int8"), INPUT)
    y = net.add("second", map_layer("conv", shape, 16, 1, 1, 1, "relu", "int8", "int8"), x)
    z = net.add("third", map_layer("conv", shape, 16, 3, 1, 1, "none", "int8", "int8"), y)
    total = net.add("sum", map_layer("add", shape, 16, activation_format="int8"), z, x)
    net.add("real", map_layer("dequantize", shape, 16, activation_format="int8"), total)
    quantized = random_network(net.build(), rng=np.random.default_rng(0))
    noise = np.random.default_rng(1).standard_normal((8, *shape)).astype(np.float32)
    executable = runtime.compile(Artifact(emit(quantized)))
    assert executable.fused_sums() == {"third"}
    answers, images = single_output(executable, noise), torch.from_numpy(noise)
    fused, written = (
        simulate(quantized, images, fused=names).numpy() for names in (executable.fused_sums(), ())
    )
    assert (fused != answers).mean() < TIES
    assert (written != answers).mean() > 0.05


@pytest.mark.parametrize(("instructions", "sums"), [("AVX2", "saturating")])
def test_sums_saturate_where_the_processor_has_no_better(instructions: str, sums: str) -> None:
    code = "from hw_profiles.runtimes.openvino.runtime import integer_sums; print(integer_sums('CPU'))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == sums


def test_it_says_of_itself_how_it_is_opened_again() -> None:
    for name in ("openvino", "openvino:threads=2,hint=throughput,batch=4"):
        info = open_device(name).describe()
        assert choice_of(info) == choose(name)
        assert info.integer_sums in ("exact", "saturating")


def test_precisions_and_devices_that_are_not_here_are_refused(runtime: OpenVinoRuntime) -> None:
    with pytest.raises(TrilobitError, match=r"no device 'Abacus' here; it has CPU"):
        open_device("openvino:Abacus")
    with pytest.raises(TrilobitError, match=r"precision must be one of f32, bf16, f16, got 'f8'"):
        choose("openvino:precision=f8")
    assert ("int2", "int8") not in runtime.formats
    assert {("fp32", "fp32"), ("int8", "int8"), ("int4", "int8")} <= runtime.formats


def test_what_it_rejects_is_said_in_one_line(runtime: OpenVinoRuntime) -> None:
    layer = changed(map_layer("conv", (16, 8, 8), 8), weight_format="int2", activation_format="int8")
    with pytest.raises(TrilobitError, match="OpenVINO: Unsupported data type INT2") as refused:
        runtime.compile(Artifact(network(single(layer))))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_opened_again_is_the_same(runtime: OpenVinoRuntime) -> None:
    """The second time it is read as OpenVINO wrote it, which loses names of nodes."""
    family = load_family("digits-vit", in_channels=1, classes=10, formats=("fp32", "int8"))
    work = family.workload(family.extremes()["smallest/int8"])
    noise = np.random.default_rng(1).standard_normal((1, *work.in_shape)).astype(np.float32)
    model = network(work)
    first, second = (runtime.compile(Artifact(model)) for _ in range(2))
    np.testing.assert_array_equal(single_output(first, noise), single_output(second, noise))
    assert (second.inputs, second.outputs) == (first.inputs, first.outputs)
    nodes = {node.output[0] for node in onnx.load_from_string(model).graph.node}
    said = [
        {node: kind for node, kind in each.named_kernels().items() if node in nodes}
        for each in (first, second)
    ]
    assert len(said[0]) > 10
    assert said[0] == said[1]


def test_no_more_compiled_files_are_kept_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = CompiledFiles(core(), OpenVinoOptions())
    models = [network(alone(map_layer("conv", (8, 4, 4), 8 * i))) for i in (1, 2, 3)]
    size = len(kept.anew(models[2]).export_model().getvalue())
    monkeypatch.setattr("hw_profiles.runtimes.openvino.compiled.KEPT_BYTES", size)
    again = [[kept.compile(model)[1] for _ in range(2)] for model in models]
    assert again == [[True, False]] * 3
    assert kept.compile(models[0])[1]  # it had to go


def test_kernels_are_timed_by_the_nodes_that_they_compute(runtime: OpenVinoRuntime) -> None:
    family = load_family("cifar-mbconv", in_channels=3, classes=10, formats=("fp32", "int8"))
    model = network(family.workload(family.extremes()["largest/fp32"]))
    kernels = runtime.kernel_times(Artifact(model), 10)
    graph = onnx.load_from_string(model).graph
    convolutions = {node.output[0] for node in graph.node if node.op_type == "Conv"}
    timed = {kernel.name for kernel in kernels if kernel.op == "Convolution_f32"}
    assert timed == convolutions
    assert all(kernel.seconds >= 0 for kernel in kernels)
    assert 1e-5 < sum(kernel.seconds for kernel in kernels) < 1
    given = {tensor for kernel in kernels for tensor in kernel.gives}
    assert {tensor for kernel in kernels for tensor in kernel.reads} <= given | {"image"}


def test_its_package_sends_nothing() -> None:
    code = "import hw_profiles.runtimes.openvino.engine, sys; print('openvino_telemetry' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
