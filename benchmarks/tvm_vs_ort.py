"""Own int8 kernels (hw_profiles/runtimes/tvm_cpu) against ONNX Runtime's, unit by unit.

Pointwise and depthwise convolutions and two classifiers, batch 1, one thread, in turns on one pinned core in
the moments when it is left alone. Both get uint8 codes and give what the unit gives (codes, or logits of a
classifier). ORT's time is that of a session with one fused operator and preallocated tensors; the second
peer column takes off what a session costs that does nothing. Ours is a linked library that is called by TVM's
timer. Every result of ours is compared with the integer reference first: it must be equal bit for bit.

`--target` compiles for another processor whose code this one runs, for example `znver3` for AVX2 alone; what
instructions ONNX Runtime uses is not ours to choose, so its sums are reported beside it.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import tvm
from harness import Row, argument_parser, interquartile_range, one_core, report

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer, map_layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.host import instruction_set
from hw_profiles.measure.interleave import ReferenceWorkload, Timed, interleaved
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.reference.integer_ops import run_network
from hw_profiles.reference.random_units import random_units
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.link import link_network, pack_parameters, plan_network
from hw_profiles.runtimes.tvm_cpu.runtime import (
    compiled_units,
    default_database,
    network_arrays,
    timed_library,
)
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, host_target, parse_target
from hw_profiles.runtimes.tvm_cpu.tuning import Database, run_locally
from hw_profiles.runtimes.tvm_cpu.unit import CompiledUnit
from nas.emit.to_onnx import emit, random_network

TARGET = 1.3  # times as fast as ORT, in the median
# positions, output channels, input channels
POINTWISE = (
    (196, 384, 64),
    (196, 96, 576),
    (784, 192, 32),
    (784, 32, 192),
    (49, 160, 960),
    (1024, 144, 24),
    (64, 576, 96),
    (16, 160, 960),
    (1, 1008, 1280),
    (1, 1280, 960),
)
# kernel, stride, map size, channels
DEPTHWISE = (
    (3, 1, 32, 96),
    (5, 1, 32, 96),
    (7, 1, 32, 96),
    (5, 1, 16, 192),
    (3, 1, 14, 576),
    (5, 1, 14, 576),
    (7, 1, 14, 576),
    (3, 2, 56, 144),
    (5, 1, 7, 960),
    (3, 1, 4, 576),
)


def pointwise(positions: int, out: int, channels: int) -> Layer:
    """A matrix product as the unit that it is in a network."""
    if positions == 1:
        return map_layer("linear", (channels, 1, 1), out, weight_format="int8", activation_format="int8")
    size = int(positions**0.5)
    return map_layer("conv", (channels, size, size), out, 1, 1, 1, "relu", "int8", "int8")


def depthwise(kernel: int, stride: int, size: int, channels: int) -> Layer:
    """One filter per channel."""
    return map_layer(
        "conv", (channels, size, size), channels, kernel, stride, channels, "relu", "int8", "int8"
    )


def ours(layer: Layer, unit: CompiledUnit, target: TvmTarget, library: Path) -> Timed:
    """Our unit, ready to be timed, its result checked."""
    work = single(layer)
    plan = plan_network(work, {layer.key(): unit})
    link_network(plan, target, library)
    numbers = random_units(work, np.random.default_rng(0), sums=sums_of(target))
    arrays = network_arrays(plan, pack_parameters(plan, numbers, target))
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    tvm.runtime.load_module(str(library))["main"](*tensors)
    np.testing.assert_array_equal(
        tensors[-1].numpy().reshape(-1), run_network(work, numbers, arrays[0]).reshape(-1)
    )
    [run] = timed_library(library, arrays, sessions=1)
    return run


def ort_model(layer: Layer) -> bytes:
    """The unit as ONNX with codes at its edges: float conversions are taken off."""
    builder = WorkloadBuilder(layer.in_shape)
    builder.add("unit", layer, INPUT)
    model = onnx.load_from_string(emit(random_network(builder.build(), rng=np.random.default_rng(0))))
    graph = model.graph
    first, last = graph.node[0], graph.node[-1]
    assert first.op_type == "QuantizeLinear"
    graph.input[0].name = first.output[0]
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    graph.node.remove(first)
    if layer.out_format != "fp32":
        assert last.op_type == "DequantizeLinear"
        graph.output[0].name = last.input[0]
        graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
        graph.node.remove(last)
    return bytes(model.SerializeToString())


def null_model() -> bytes:
    """One code, handed on."""
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [1]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "null", tensors[:1], tensors[1:]
    )
    opset = onnx.helper.make_opsetid("", 21)
    return bytes(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString())


def ort(model: bytes, plan: MeasurePlan) -> Timed:
    """A session with preallocated tensors, ready to be timed."""
    return host_runtime().compile(Artifact(model)).timed(plan.clock)


def ratio_row(task: str, ours_us: np.ndarray, ort_us: np.ndarray, null_us: float) -> list[Row]:
    """Microseconds of both, and how many times as fast ours is."""
    ratio = ort_us / ours_us
    least = {"least": float(ratio.min())} if ratio.size else {}
    without = {"ORT less a null session": float(np.median((ort_us - null_us) / ours_us))}
    return [
        Row(
            task,
            "speed against ORT int8",
            "1",
            "higher",
            float(np.median(ratio)),
            interquartile_range(ratio),
            least | without,
            TARGET,
        )
    ]


def rows(
    plan: MeasurePlan, shapes: Sequence[tuple[str, Layer]], reference: ReferenceWorkload, target: TvmTarget
) -> list[Row]:
    """Measure all shapes, each in turns with ORT."""
    database = Database(default_database(), target)
    units = compiled_units([single(layer) for _, layer in shapes], database, run_locally)
    result: list[Row] = []
    ours_us: dict[str, float] = {}
    ort_times_us: dict[str, float] = {}
    null_sessions_us: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        null = ort(null_model(), plan)
        for i, (task, layer) in enumerate(shapes):
            unit = units[layer.key()]
            if isinstance(unit, str):
                raise RuntimeError(f"{layer.key()}: {unit}")
            runs = [ours(layer, unit, target, Path(folder) / f"{i}.so"), ort(ort_model(layer), plan), null]
            measured = interleaved([[run] for run in runs], plan, reference)
            samples = [1e6 * np.array(each.seconds) for each in measured]
            tvm_us, ort_us, null_us = (float(np.median(each)) for each in samples)
            ours_us[task], ort_times_us[task] = tvm_us, ort_us
            null_sessions_us.append(null_us)
            peers = {"ORT": ort_us, "ORT less a null session": ort_us - null_us}
            result.append(
                Row(
                    task,
                    "time",
                    "us",
                    "lower",
                    tvm_us,
                    interquartile_range(samples[0]),
                    peers,
                    ort_us / TARGET,
                )
            )
    for kind in ("pointwise", "depthwise"):
        tasks = [task for task in ours_us if task.startswith(kind)]
        pair = (np.array([times[task] for task in tasks]) for times in (ours_us, ort_times_us))
        result += ratio_row(f"all {kind}", *pair, float(np.median(null_sessions_us)))
    return result


def all_shapes() -> list[tuple[str, Layer]]:
    """Every shape with its name."""
    shapes = [(f"pointwise {m} x {n} x {k}", pointwise(m, n, k)) for m, n, k in POINTWISE]
    return shapes + [
        (f"depthwise {k}x{k}{'/2' * (s == 2)} {size}x{size}x{channels}", depthwise(k, s, size, channels))
        for k, s, size, channels in DEPTHWISE
    ]


def instructions_of(target: TvmTarget) -> str | None:
    """Return what a run for another target is of; None for this machine's own."""
    if target == host_target():
        return None
    sums = host_runtime().describe().integer_sums
    return f"ours for {target.mcpu}, ONNX Runtime's kernels with {sums} sums, on {instruction_set()}"


def main() -> None:
    """Run, print and write."""
    parser = argument_parser(__doc__, seeds=60)
    parser.add_argument("--target", type=parse_target, default="host", help="what ours is compiled for")
    arguments = parser.parse_args()
    target: TvmTarget = arguments.target
    rounds, shapes = (8, all_shapes()[::5]) if arguments.quick else (arguments.seeds, all_shapes())
    waiting_s = 0.2 if arguments.quick else 4.0
    with one_core():
        plan = MeasurePlan(rounds=rounds, waiting_s=waiting_s, clock="wall")
        measured = rows(plan, shapes, ReferenceWorkload(), target)
        report("tvm_vs_ort", measured, arguments.json, instructions_of(target))


if __name__ == "__main__":
    main()
