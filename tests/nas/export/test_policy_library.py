"""Policies of imported models as self-contained libraries: every bit, in any layout, against ONNX Runtime."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("tvm")

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.workload import Workload
from hw_profiles.reference.integer_ops import run_network
from hw_profiles.runtimes.runtime import Artifact
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan
from hw_profiles.runtimes.tvm_cpu.runtime import TvmRuntime, open_tvm
from hw_profiles.runtimes.tvm_cpu.self_contained import SelfContainedExecutable
from hw_profiles.runtimes.tvm_cpu.unit import Argument, CompiledUnit, Tile
from nas.emit.layer_formats import require_covered
from nas.emit.unit_formats import unit_formats
from nas.export.library.policies import PolicyLibraries, kernel_layers, kernel_times
from nas.export.library.to_tvm import unit_numbers
from nas.tune.policies.random_policies import random_policies
from nas.tune.policies.space import policy_of, policy_space
from nas.tune.setup.files import own_kernel_of
from nas.tune.timing.kernel_attribution import attribute
from predictors.latency.policy_terms import PolicyTerms, Term
from supernet.data.samples import Samples
from supernet.imported.folding import fold
from supernet.imported.import_onnx import import_onnx
from supernet.imported.model import ImportedModel
from supernet.ptq.policy_graph import policy_workload, quantized_graph
from supernet.ptq.quantization import Policy, Quantization
from supernet.ptq.quantize_model import quantize_model

SIZE, CLASSES = 11, 5
REAL_ERROR = 1e-4  # other orders of summation, of logits around 1
INT8_ERROR = 0.2  # of the largest logit


def residual(*, layout: str = "NCHW", softmax: bool = False, clip: float = 6.0) -> bytes:
    """Asymmetric pads, a clip, a residual sum, pools of windows and of maps, a linear layer."""
    rng = np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {"low": np.array(0, np.float32), "high": np.array(clip, np.float32)}

    def weight(name: str, *shape: int) -> str:
        stored[name] = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
        return name

    def conv(x: str, y: str, shape: tuple[int, ...], **more: object) -> onnx.NodeProto:
        names = [x, weight(f"{y}.w", *shape), weight(f"{y}.b", shape[0])]
        return helper.make_node("Conv", names, [y], name=y, **more)

    nodes = [
        conv("maps", "stem", (12, 3, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1]),
        helper.make_node("Clip", ["stem", "low", "high"], ["stem6"]),
        conv("stem6", "depthwise", (12, 1, 3, 3), group=12, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["depthwise"], ["positive"]),
        conv("positive", "project", (12, 12, 1, 1)),
        helper.make_node("Add", ["project", "stem6"], ["sum"], name="sum"),
        helper.make_node(
            "MaxPool", ["sum"], ["largest"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, name="largest"
        ),
        helper.make_node("AveragePool", ["largest"], ["mean"], kernel_shape=[2, 2], name="mean"),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node(
            "Gemm", ["flat", weight("fc.w", 48, CLASSES), weight("fc.b", CLASSES)], ["logits"], name="fc"
        ),
    ]
    shape = ["batch", 3, SIZE, SIZE] if layout == "NCHW" else ["batch", SIZE, SIZE, 3]
    if layout == "NHWC":
        nodes.insert(0, helper.make_node("Transpose", ["image"], ["maps"], perm=[0, 3, 1, 2]))
    else:
        nodes[0].input[0] = "image"
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["shares"]))
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(made.SerializeToString())


def images(n: int, layout: str = "NCHW") -> np.ndarray:
    planes = np.random.default_rng(1).standard_normal((n, 3, SIZE, SIZE), np.float32)
    return planes if layout == "NCHW" else np.ascontiguousarray(planes.transpose(0, 2, 3, 1))


def calibrated(model: ImportedModel, layout: str = "NCHW") -> Quantization:
    formats = {unit.name: ("int8", "int4") for unit in model.units if unit.op not in ("Softmax", "Transpose")}
    return quantize_model(
        model, Samples({"image": images(32, layout)[:, None]}), formats, rng=np.random.default_rng(0)
    )


def all_in(model: ImportedModel, fmt: str) -> Policy:
    moved = fold(model).moved
    return {
        unit.name: fmt if unit.weighted else "int8"
        for unit in model.units
        if unit.name not in moved and unit.op != "Softmax"
    }


def answers(content: bytes, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"image": row[None]})[0] for row in x])


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> TvmRuntime:
    """Of units that nothing was tuned for: the first schedule is as right as the best."""
    opened = open_tvm(database=tmp_path_factory.mktemp("database")).runtime
    assert isinstance(opened, TvmRuntime)
    return opened


@pytest.fixture(scope="module")
def model() -> ImportedModel:
    return import_onnx(residual())


@pytest.fixture(scope="module")
def quantization(model: ImportedModel) -> Quantization:
    return calibrated(model)


def library(runtime: TvmRuntime, quantization: Quantization, policy: Policy) -> bytes:
    return PolicyLibraries(runtime, tuned=False).write(quantization, policy)


def outputs(runtime: TvmRuntime, content: bytes, x: np.ndarray) -> np.ndarray:
    executable = runtime.compile(Artifact(content, "library"))
    (result,) = executable.run({"image": x}).values()
    return result


def test_an_integer_policy_computes_every_bit(
    runtime: TvmRuntime, model: ImportedModel, quantization: Quantization
) -> None:
    policy, x = all_in(model, "int8"), images(6)
    built = PolicyLibraries(runtime, tuned=False).library(quantization, policy)
    assert built.integer_only
    network = quantized_graph(quantization, policy)
    numbers = unit_numbers(network)
    exact = [run_network(network.workload, numbers, image.transpose(1, 2, 0)).ravel() for image in x]
    logits = outputs(runtime, built.code, x)
    np.testing.assert_array_equal(logits, exact)
    original = answers(model.content, x)
    assert np.abs(logits - original).max() <= INT8_ERROR * np.abs(original).max()


@pytest.mark.parametrize("fmt", ["fp32", "mixed", pytest.param("int4", marks=pytest.mark.slow)])
def test_any_policy_is_near_the_original(
    fmt: str, runtime: TvmRuntime, model: ImportedModel, quantization: Quantization
) -> None:
    policy: Mapping[str, str] = all_in(model, "int4" if fmt == "int4" else "int8")
    policy = {name: chosen for i, (name, chosen) in enumerate(policy.items()) if fmt != "mixed" or i % 2}
    x, original = images(6), answers(model.content, images(6))
    logits = outputs(runtime, library(runtime, quantization, {} if fmt == "fp32" else policy), x)
    allowed = {"fp32": REAL_ERROR, "mixed": INT8_ERROR, "int4": 3 * INT8_ERROR}[fmt]
    assert np.abs(logits - original).max() <= allowed * np.abs(original).max()


def test_a_file_with_channels_last_gives_the_same(
    runtime: TvmRuntime, model: ImportedModel, quantization: Quantization
) -> None:
    last = import_onnx(residual(layout="NHWC", softmax=True))
    other = calibrated(last, "NHWC")
    policy = all_in(last, "int8")
    shares = outputs(runtime, library(runtime, other, policy), images(4, "NHWC"))
    logits = outputs(runtime, library(runtime, quantization, all_in(model, "int8")), images(4))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(shares, powers / powers.sum(1, keepdims=True), atol=REAL_ERROR)


@pytest.mark.slow
def test_a_clip_that_no_layer_can_name_is_one_of_its_own(runtime: TvmRuntime) -> None:
    model = import_onnx(residual(clip=1.0))
    assert "stem.clip" in fold(model).workload.names
    quantization, x = calibrated(model), images(4)
    original = answers(model.content, x)
    np.testing.assert_allclose(
        outputs(runtime, library(runtime, quantization, {}), x), original, atol=REAL_ERROR
    )
    logits = outputs(runtime, library(runtime, quantization, all_in(model, "int8")), x)
    assert np.abs(logits - original).max() <= INT8_ERROR * np.abs(original).max()


def test_maps_that_are_given_are_in_the_order_of_the_file(runtime: TvmRuntime) -> None:
    rng = np.random.default_rng(2)
    stored = {"w": rng.normal(0, 0.3, (5, 3, 1, 1)), "b": rng.normal(0, 1, 5)}
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, SIZE, SIZE])
        for name, channels in (("image", 3), ("maps", 5))
    ]
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["maps"], name="conv")]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "maps",
            infos[:1],
            infos[1:],
            [numpy_helper.from_array(array.astype(np.float32), name) for name, array in stored.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    model, x = import_onnx(made.SerializeToString()), images(3)
    given = outputs(runtime, library(runtime, calibrated(model), {"conv": "int8"}), x)
    original = answers(model.content, x)
    assert np.abs(given - original).max() <= INT8_ERROR / 4 * np.abs(original).max()


def test_what_is_not_covered_is_named(runtime: TvmRuntime, quantization: Quantization) -> None:
    model = import_onnx(residual())
    with pytest.raises(TrilobitError, match=r"sum: .*no add with none \(fp16"):
        library(runtime, quantization, {"sum": "fp16"})
    with pytest.raises(TrilobitError, match="stem was not calibrated in int2"):
        library(runtime, quantization, {"stem": "int2"})
    uncalibrated = replace(quantization, tensors={})
    with pytest.raises(TrilobitError, match=r"the range of what .* gives was not calibrated"):
        library(runtime, uncalibrated, all_in(model, "int8"))


def test_machine_code_of_others_is_not_loaded(runtime: TvmRuntime, quantization: Quantization) -> None:
    content = library(runtime, quantization, {})
    other = open_tvm(database=runtime.database.folder).runtime
    assert other is not None
    with pytest.raises(TypeError, match="not built here"):
        other.compile(Artifact(content, "library"))
    executable = runtime.compile(Artifact(content, "library"))
    assert isinstance(executable, SelfContainedExecutable)
    assert sum(executable.kernels().values()) == 7
    with pytest.raises(ValueError, match="float32 of"):
        executable.run({"image": images(2)[:, :, 1:]})
    assert Path(executable.path).suffix == ".so"


def test_units_say_what_covers_them(runtime: TvmRuntime, model: ImportedModel) -> None:
    formats = unit_formats(model, runtime)
    assert formats["stem"].allowed[:2] == ("fp32", "int8")
    assert "int4" in formats["fc"].allowed
    assert all(unit.follows for name, unit in formats.items() if not model.unit(name).weighted)
    require_covered(model, formats, "TVM")
    keys = [layer.key() for layer in kernel_layers(model, {"stem": ("int8",), "fc": ("int4",)})]
    assert "linear 12x2x2>5 k1s1g1 none w=int4 a=int8" in keys
    assert "quantize 12x5x5>12 k1s1g1 none w=fp32 a=int8" in keys


def test_kernels_are_made_once(tmp_path: Path, model: ImportedModel) -> None:
    runtime = open_tvm(database=tmp_path).runtime
    assert isinstance(runtime, TvmRuntime)
    libraries, done = PolicyLibraries(runtime, tuned=False), list[int]()
    layers = kernel_layers(model, {"stem": ("int8",)})
    assert libraries.untuned(layers) == layers
    libraries.tune_kernels(layers[-2:], done.append)
    assert done == [1, 2]
    assert libraries.untuned(layers) == layers[:-2]
    assert PolicyLibraries(runtime).untuned(layers) == layers  # whose first schedule was only compiled


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_times_of_kernels_are_those_of_the_units_and_conversions(layout: str) -> None:
    model = import_onnx(residual(layout=layout))
    formats = {unit.name: ("fp32", "int8", "int4") for unit in model.units if unit.weighted}
    space = policy_space(model, formats)
    terms = PolicyTerms.of(space, model, own_kernel_of)
    for genome in random_policies(space, model, 6, rng=np.random.default_rng(0)):
        plan = tried_out(policy_workload(model, policy_of(space, genome)))
        kernels = kernel_times(model, plan)
        assert [kernel.seconds for kernel in kernels] == [unit.seconds for unit in plan.units]
        seconds = attribute(kernels, terms, genome)
        runs_on = terms.kernels_of(genome)
        for kernel in kernels:
            if kernel.name in runs_on:  # with conversions that ONNX Runtime would do without
                assert seconds[Term("unit", kernel.name, runs_on[kernel.name])] >= kernel.seconds
        assert sum(seconds.values()) == pytest.approx(sum(kernel.seconds for kernel in kernels))


def tried_out(work: Workload) -> NetworkPlan:
    """Return a network whose units took a second, two, three, and so on."""
    units = tuple(
        CompiledUnit("unit", (), Tile(16), Path("unit.o"), seconds=1.0 + i) for i in range(len(work.layers))
    )
    ends = Argument((1,), "float32")
    return NetworkPlan(work, units, ends, ends, 1, 1, ((),) * len(units))


def test_a_kernel_that_was_not_tried_out_leaves_nothing_to_say(model: ImportedModel) -> None:
    plan = tried_out(policy_workload(model, {}))
    units = (replace(plan.units[0], seconds=None), *plan.units[1:])
    assert kernel_times(model, replace(plan, units=units)) == ()


def test_a_library_goes_with_what_it_was_loaded_as(runtime: TvmRuntime, quantization: Quantization) -> None:
    artifact = Artifact(library(runtime, quantization, {}), "library")
    one, other = runtime.compile(artifact), runtime.compile(artifact)
    assert isinstance(one, SelfContainedExecutable)
    assert isinstance(other, SelfContainedExecutable)
    gone, kept, run = one.path, other.path, one.timed("thread")
    (before,) = other.run({"image": images(1)}).values()
    del one
    gc.collect()
    assert not gone.exists()
    assert kept.exists()
    assert run(1) > 0  # what is still held stays loaded
    (after,) = other.run({"image": images(1)}).values()
    np.testing.assert_array_equal(before, after)


def test_what_follows_is_computed_in_integers(model: ImportedModel) -> None:
    products = {unit.name: "int8" for unit in model.units if unit.weighted}
    formats = dict(zip((work := policy_workload(model, products)).names, work.layers, strict=True))
    assert all(formats[name].in_format == "int8" for name in ("sum", "largest", "mean"))
    assert {layer.in_format for layer in policy_workload(model, {"sum": "fp32"}).layers} == {"fp32"}


def test_a_model_that_is_not_covered_says_which_units(runtime: TvmRuntime) -> None:
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["y"], name="gate"),
        helper.make_node("Erf", ["y"], ["z"], name="error"),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in "xz"]
    made = helper.make_model(
        helper.make_graph(nodes, "curves", infos[:1], infos[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    model = import_onnx(made.SerializeToString())
    with pytest.raises(TrilobitError, match=r"2 of 2 units .* TVM: gate: Sigmoid.*error: Erf: no kernel"):
        require_covered(model, unit_formats(model, runtime), "TVM")


def test_shape_arithmetic_and_numbers_alone_are_named_not_folded(runtime: TvmRuntime) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["row"], name="row"),
        helper.make_node("Softmax", ["row"], ["y"], name="softmax"),
    ]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])]
    infos.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    made = helper.make_model(
        helper.make_graph(nodes, "scalars", infos[:1], infos[1:], [one]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    model = import_onnx(made.SerializeToString())
    with pytest.raises(TrilobitError, match=r"units have no kernel of TVM: .*mean"):
        require_covered(model, unit_formats(model, runtime), "TVM")
