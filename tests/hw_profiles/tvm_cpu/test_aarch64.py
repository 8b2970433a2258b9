"""Kernels for a processor that this machine is not, under an emulator: integers bit for bit as computed here.

Nothing is timed: an emulator's time says nothing of a device.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tvm_ffi import libinfo

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, Layer, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.reference.integer_ops import run_network
from hw_profiles.reference.random_units import random_tensor, random_units
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan, link_network, pack_parameters, plan_network
from hw_profiles.runtimes.tvm_cpu.runtime import compiled_units
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target
from hw_profiles.runtimes.tvm_cpu.tuning import Database, agrees
from hw_profiles.runtimes.tvm_cpu.unit import CompiledUnit

COMPILER, EMULATOR, LIBRARIES = "aarch64-linux-gnu-gcc", "qemu-aarch64", "/usr/aarch64-linux-gnu"
HOST = Path(__file__).with_name("run_library.c")
RUN_S = 60.0

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"needs {COMPILER} and {EMULATOR}: apt-get install gcc-aarch64-linux-gnu qemu-user",
)


def integer(op: str, *shape: object, weights: str = "int8", activation: str = "none") -> Layer:
    return map_layer(op, *shape, activation=activation, weight_format=weights, activation_format="int8")


UNITS = {
    "pointwise": integer("conv", (24, 7, 7), 40, activation="relu"),
    "pointwise_int4": integer("conv", (24, 7, 7), 40, weights="int4"),
    "pointwise_exact": integer("conv", (24, 7, 7), 40, weights="int8-exact"),
    "depthwise_stride_2": integer("conv", (24, 9, 9), 24, 3, 2, 24, activation="relu"),
    "stem": integer("stem", (3, 16, 16), 16, 3, 2, activation="relu"),
    "add": map_layer("add", (24, 7, 7), 24, activation_format="int8"),
    "pool": map_layer("pool", (24, 7, 7), 24, activation_format="int8"),
    "linear": integer("linear", (40, 1, 1), 10),
    "pointwise_fp32": map_layer("conv", (24, 7, 7), 40),
    "quantize": map_layer("quantize", (24, 7, 7), 24, activation_format="int8"),
}


# with signed dot products; with mixed ones too; with neither
PROCESSORS = ("cortex-a76", "neoverse-n2", "cortex-a53")


@pytest.fixture(scope="module")
def target() -> TvmTarget:
    return parse_target("aarch64-linux-gnu:cortex-a76")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("host") / "run_library"
    headers = {libinfo.find_include_path(), libinfo.find_dlpack_include_path()}
    includes = [f"-I{header}" for header in sorted(headers)]
    options = ["-O1", "-Wall", "-Wextra", "-Werror", "-rdynamic"]
    command = [COMPILER, *options, *includes, str(HOST), "-ldl", "-o", str(program)]
    subprocess.run(command, check=True, timeout=RUN_S)
    return program


@pytest.mark.slow
@pytest.mark.parametrize("cpu", PROCESSORS[1:])
def test_so_it_does_on_other_processors(cpu: str, runner: Path, tmp_path: Path) -> None:
    other = parse_target(f"aarch64-linux-gnu:{cpu}")
    for name in ("pointwise", "pointwise_int4", "pointwise_exact", "depthwise_stride_2", "linear"):
        folder = tmp_path / name
        folder.mkdir()
        found, wanted = outputs(single(UNITS[name]), other, runner, folder)
        assert agrees(found, wanted), name


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_computes_every_bit(name: str, target: TvmTarget, runner: Path, tmp_path: Path) -> None:
    found, wanted = outputs(single(UNITS[name]), target, runner, tmp_path)
    assert len(np.unique(wanted)) > 4  # not all clipped
    assert agrees(found, wanted)


def test_a_network_computes_every_bit(target: TvmTarget, runner: Path, tmp_path: Path) -> None:
    net = WorkloadBuilder((3, 16, 16))
    x = shortcut = net.add("stem", UNITS["stem"], INPUT)
    x = net.add("expand", integer("conv", (16, 8, 8), 24, activation="relu"), x)
    x = net.add("depthwise", integer("conv", (24, 8, 8), 24, 3, 1, 24, activation="relu"), x)
    x = net.add("project", integer("conv", (24, 8, 8), 16, weights="int4"), x)
    x = net.add("add", map_layer("add", (16, 8, 8), 16, activation_format="int8"), x, shortcut)
    x = net.add("mixed", map_layer("conv", (16, 8, 8), 20, activation="relu"), x)
    x = net.add("pool", map_layer("pool", (20, 8, 8), 20, activation_format="int8"), x)
    net.add("linear", integer("linear", (20, 1, 1), 10), x)
    found, wanted = outputs(net.build(), target, runner, tmp_path)
    assert agrees(found, wanted)


def outputs(
    work: Workload, target: TvmTarget, runner: Path, folder: Path
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """(what the emulated processor computes, what the arithmetic says)."""
    units = {
        key: unit
        for key, unit in compiled_units([work], Database(folder, target), None).items()
        if isinstance(unit, CompiledUnit)
    }
    plan, rng = plan_network(work, units), np.random.default_rng(0)
    numbers = random_units(work, rng)
    image = random_tensor(plan.image.shape, work.in_format, rng)
    link_network(plan, target, folder / "network.so")
    image.tofile(folder / "image")
    pack_parameters(plan, numbers, target).tofile(folder / "parameters")
    expected = run_network(work, numbers, image)
    return run(plan, runner, folder).reshape(expected.shape), expected


def run(plan: NetworkPlan, runner: Path, folder: Path) -> NDArray[np.generic]:
    sizes = str(plan.workspace_bytes), str(plan.output.size_bytes)
    files = [str(folder / name) for name in ("network.so", "image", "parameters", "output")]
    words = [*files[:3], sizes[0], files[3], sizes[1]]
    command = [EMULATOR, "-cpu", "max", "-L", LIBRARIES, str(runner), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr
    return np.fromfile(files[3], plan.output.dtype)
