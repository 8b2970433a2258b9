"""The library that runs without TVM: every bit of the arithmetic, here and on an emulated processor."""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import Layer, map_layer
from hw_profiles.reference.integer_ops import run_network
from hw_profiles.runtimes.runtime import single_output
from hw_profiles.runtimes.tvm_cpu.standalone import float_operations, is_integer_only
from hw_profiles.runtimes.tvm_cpu.target import parse_target
from nas.emit.to_onnx import random_network
from nas.export.library.to_tvm import build_library, examples, unit_numbers
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate

COMPILER, EMULATOR, LIBRARIES = "aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu"
LARGEST_FP32 = 1e-4  # difference between two orders of summation, of logits around 1
INT8, INT4 = ("int8", "int8"), ("int4", "int8")


def network(first: tuple[str, str], second: tuple[str, str]) -> QuantizedGraph:
    """A block with a shortcut, pooling and a classifier; the parts of the block in two formats."""

    def conv(op: str, shape: tuple[int, int, int], out: int, kernel: int, groups: int, **more: str) -> Layer:
        weight, activation = more.pop("formats", None) or first  # type: ignore[misc]
        return map_layer(
            *(op, shape, out, kernel, 1, groups),
            **{"activation": "relu", **more},
            weight_format=weight,
            activation_format=activation,
        )

    net = WorkloadBuilder((3, 8, 8))
    x = shortcut = net.add("stem", conv("stem", (3, 8, 8), 16, 3, 1), -1)
    x = net.add("expand", map_layer("conv", (16, 8, 8), 24, 1, 1, 1, "relu", *second), x)
    x = net.add("depthwise", conv("conv", (24, 8, 8), 24, 3, 24), x)
    x = net.add("project", map_layer("conv", (24, 8, 8), 16, 1, 1, 1, "none", *second), x)
    x = net.add("add", map_layer("add", (16, 8, 8), 16, activation_format=second[1]), x, shortcut)
    x = net.add("pool", map_layer("pool", (16, 8, 8), 16, activation_format=first[1]), x)
    net.add("classifier", map_layer("linear", (16, 1, 1), 10, 1, 1, 1, "none", *first), x)
    return random_network(net.build(), rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of units that nothing was tuned for: the first schedule is as right as the best."""
    return tmp_path_factory.mktemp("database")


@pytest.fixture(autouse=True)
def _untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("nas.export.library.to_tvm"), "run_locally", None)


def images(n: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, 3, 8, 8), np.float32)


@pytest.mark.parametrize("second", [INT8, INT4])
def test_an_integer_network_computes_every_bit(
    second: tuple[str, str], database: Path, tmp_path: Path
) -> None:
    made = network(INT8, second)
    library = build_library(made, database=database)
    assert library.integer_only
    assert library.local
    x = images(20)
    found = single_output(library.written(tmp_path), x)
    numbers = unit_numbers(made)
    wanted = [run_network(made.workload, numbers, one.transpose(1, 2, 0)).ravel() for one in x]
    np.testing.assert_array_equal(found, np.array(wanted))
    assert len(np.unique(found)) > 20


def test_weights_of_all_codes_are_computed_exactly_where_the_fastest_kernels_would_saturate(
    database: Path, tmp_path: Path
) -> None:
    made, older = network(INT8, INT4), "haswell"  # AVX2, no VNNI
    numbers = unit_numbers(made)
    assert (
        max(
            int(np.abs(each.weight.astype(int)).max()) for each in numbers.values() if each.weight is not None
        )
        > 64
    )
    library = build_library(made, target=older, database=database)
    assert {layer.weight_format for layer in library.plan.workload.layers if layer.weighted} == {
        "int8-exact",
        "int4",
    }
    if not library.local:
        pytest.skip("this machine does not run AVX2 code")
    x = images(20)
    wanted = [run_network(made.workload, numbers, one.transpose(1, 2, 0)).ravel() for one in x]
    np.testing.assert_array_equal(single_output(library.written(tmp_path), x), np.array(wanted))


@pytest.mark.parametrize(("first", "second"), [(INT8, INT8), (INT8, INT4)])
def test_integer_predictions_are_those_of_the_simulation(
    first: tuple[str, str], second: tuple[str, str], database: Path, tmp_path: Path
) -> None:
    made, x = network(first, second), images(200)
    found = single_output(build_library(made, database=database).written(tmp_path), x)
    wanted = simulate(made, torch.from_numpy(x)).numpy()
    same = found.argmax(axis=1) == wanted.argmax(axis=1)
    assert same.mean() >= 0.97  # noise through random weights: the best logits are close
    assert np.abs(found - wanted).mean() < 0.02 * wanted.std()


@pytest.mark.parametrize(("first", "second"), [(("fp32", "fp32"),) * 2, (INT8, ("fp32", "fp32"))])
def test_real_layers_agree_with_the_simulation(
    first: tuple[str, str], second: tuple[str, str], database: Path, tmp_path: Path
) -> None:
    made, x = network(first, second), images(10)
    library = build_library(made, database=database)
    assert not library.integer_only
    found = single_output(library.written(tmp_path), x)
    wanted = simulate(made, torch.from_numpy(x)).numpy()
    allowed = LARGEST_FP32 if first[0] == "fp32" else 0.1 * float(wanted.std())  # a code may tip over
    assert np.abs(found - wanted).max() < allowed


def test_floating_point_is_found_where_it_is(database: Path) -> None:
    mixed = build_library(network(INT8, ("fp32", "fp32")), database=database)
    found = float_operations(mixed.plan, parse_target("host"))
    assert {"expand", "project"} <= set(found)
    assert "depthwise" not in found
    assert not is_integer_only(mixed.plan.workload)


def test_a_layer_without_a_kernel_is_named(database: Path) -> None:
    net = WorkloadBuilder((3, 8, 8))
    net.add("curved", map_layer("stem", (3, 8, 8), 16, 3, activation="hswish"), -1)
    with pytest.raises(TrilobitError, match="curved: TVM's kernels have no stem with hswish"):
        build_library(random_network(net.build(), rng=np.random.default_rng(0)), database=database)


def test_the_examples_run(database: Path, tmp_path: Path) -> None:
    made, [x] = network(INT8, INT4), images(1)
    library = build_library(made, database=database)
    executable = library.written(tmp_path)
    wanted = str(int(single_output(executable, x[None]).argmax()))
    x.transpose(1, 2, 0).astype(np.float32).tofile(tmp_path / "image.raw")
    for name, data in examples(library.plan).items():
        (tmp_path / name).write_bytes(data)
    compile_c = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "example.c", "-ldl", "-o", "example"]
    subprocess.run(compile_c, cwd=tmp_path, check=True, timeout=60)
    for command in (["./example", "image.raw"], [sys.executable, "example.py", "image.raw"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip() == wanted
    bad = subprocess.run(["./example"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (bad.returncode, bad.stderr) == (2, "takes a raw file of 192 float32\n")


@pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"needs {COMPILER} and {EMULATOR}: apt-get install gcc-aarch64-linux-gnu qemu-user",
)
def test_another_processor_computes_every_bit(database: Path, tmp_path: Path) -> None:
    made, [x] = network(INT8, INT4), images(1)
    library = build_library(made, target="aarch64-linux-gnu:cortex-a76", database=database)
    assert not library.local
    library.written(tmp_path)
    source = examples(library.plan)["example.c"].decode()
    # all logits, not only the best one
    (tmp_path / "all.c").write_text(
        source.replace('printf("%d\\n", best)', "fwrite(logits, 4, CLASSES, stdout)")
    )
    x.transpose(1, 2, 0).astype(np.float32).tofile(tmp_path / "image.raw")
    subprocess.run([COMPILER, "-O1", "all.c", "-ldl", "-o", "all"], cwd=tmp_path, check=True, timeout=60)
    command = [EMULATOR, "-L", LIBRARIES, "./all", "image.raw"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    wanted = run_network(made.workload, unit_numbers(made), x.transpose(1, 2, 0)).ravel()
    np.testing.assert_array_equal(np.frombuffer(done.stdout, np.float32), wanted)
