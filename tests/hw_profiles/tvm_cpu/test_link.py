"""A linked network computes what its units compute one after the other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tvm

from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.layer import INPUT, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.reference.integer_ops import run_network
from hw_profiles.reference.random_units import random_tensor, random_units
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.link import link_network, network_source, pack_parameters, plan_network
from hw_profiles.runtimes.tvm_cpu.runtime import network_arrays
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget
from hw_profiles.runtimes.tvm_cpu.tuning import FP32_TOLERANCE
from hw_profiles.runtimes.tvm_cpu.unit import CompiledUnit
from supernet.families.family import Family, load_family
from supernet.families.mbconv import MBConvFamily, Stage

Units = Callable[[Workload], dict[str, CompiledUnit]]


def mixed() -> Workload:
    """Both formats, a residual sum, every op."""
    net, shape = WorkloadBuilder((3, 6, 6)), (16, 6, 6)
    x = net.add("stem", map_layer("stem", (3, 6, 6), 16, 3, 1, 1, "relu"), INPUT)
    y = net.add("expand", map_layer("conv", shape, 16, 1, 1, 1, "relu", "int8", "int8"), x)
    y = net.add("depthwise", map_layer("conv", shape, 16, 3, 1, 16, "relu", "int4", "int8"), y)
    y = net.add("project", map_layer("conv", shape, 16, 1, 1, 1, "none", "int8", "int8"), y)
    y = net.add("sum", map_layer("add", shape, 16, activation_format="int8"), y, x)
    y = net.add("real", map_layer("conv", shape, 16, 1, 1, 1, "relu"), y)
    y = net.add("pool", map_layer("pool", shape, 16, activation_format="int8"), y)
    net.add("classes", map_layer("linear", (16, 1, 1), 10, 1, 1, 1, "none", "int8", "int8"), y)
    return net.build()


def run_linked(
    work: Workload, units: dict[str, CompiledUnit], target: TvmTarget, library: Path
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(found, wanted) for a few images, which lie elsewhere each time."""
    plan = plan_network(work, units)
    link_network(plan, target, library)
    numbers = random_units(work, np.random.default_rng(1), sums=sums_of(target))
    module = tvm.runtime.load_module(str(library))
    for seed in range(3):
        arrays = network_arrays(plan, pack_parameters(plan, numbers, target))
        image = random_tensor(arrays[0].shape, work.in_format, np.random.default_rng(seed))
        tensors = [tvm.runtime.tensor(array) for array in (image, *arrays[1:])]
        module["main"](*tensors)
        yield tensors[-1].numpy().reshape(-1), run_network(work, numbers, image).reshape(-1)


@pytest.mark.slow
def test_a_mixed_network_is_its_units_in_turn(units_of: Units, host: TvmTarget, tmp_path: Path) -> None:
    work = mixed()
    for found, wanted in run_linked(work, units_of(work), host, tmp_path / "net.so"):
        np.testing.assert_allclose(found, wanted, rtol=FP32_TOLERANCE, atol=FP32_TOLERANCE)


def integers_only(work: Workload) -> bool:
    return all(
        layer.activation_format != "fp32"
        for layer in work.layers
        if layer.kind not in ("quantize", "dequantize")
    )


def smallest(family: Family, precision: int) -> Workload:
    """Return the network of all first options, in one precision."""
    space = family.space()
    genome = np.zeros(len(space.choices), space.sample(1, rng=np.random.default_rng(0)).dtype)
    for column, choice in enumerate(space.choices):
        if choice.kind == "precision":
            genome[column] = precision
    return family.workload(space.candidate(genome))


def test_an_integer_network_is_exact(units_of: Units, host: TvmTarget, tmp_path: Path) -> None:
    stages = (Stage(8, 1, (1,), (16,), (3,)), Stage(16, 2, (1,), (32,), (5,)))
    work = smallest(MBConvFamily("small", (8,), 8, stages, 16, in_channels=1, classes=10), 1)
    assert integers_only(work)
    for found, wanted in run_linked(work, units_of(work), host, tmp_path / "net.so"):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_random_networks_are_their_units_in_turn(units_of: Units, host: TvmTarget, tmp_path: Path) -> None:
    family = load_family("cifar-mbconv", in_channels=3, classes=10)
    space = family.space()
    for i, genome in enumerate(space.sample(3, rng=np.random.default_rng(0))):
        work = family.workload(space.candidate(genome))
        for found, wanted in run_linked(work, units_of(work), host, tmp_path / f"net{i}.so"):
            np.testing.assert_allclose(found, wanted, rtol=FP32_TOLERANCE, atol=FP32_TOLERANCE)
    work = smallest(family, 1)
    for found, wanted in run_linked(work, units_of(work), host, tmp_path / "integer.so"):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_a_dense_network_is_exact(units_of: Units, host: TvmTarget, tmp_path: Path) -> None:
    work = smallest(load_family("cifar-pooled", in_channels=3, classes=10), 1)
    for found, wanted in run_linked(work, units_of(work), host, tmp_path / "dense.so"):
        np.testing.assert_array_equal(found, wanted)


def test_a_single_integer_layer_takes_codes(units_of: Units, host: TvmTarget, tmp_path: Path) -> None:
    work = single(map_layer("add", (8, 3, 3), 8, activation_format="int8"))
    assert plan_network(work, units_of(work)).image.dtype == "uint8"
    for found, wanted in run_linked(work, units_of(work), host, tmp_path / "net.so"):
        np.testing.assert_array_equal(found, wanted)


def test_the_source_calls_every_unit_in_order(units_of: Units) -> None:
    work = mixed()
    calls = [
        line for line in network_source(plan_network(work, units_of(work))).splitlines() if "/* " in line
    ]
    names = [line.rsplit("/* ", 1)[1].removesuffix(" */") for line in calls if "code =" in line]
    assert names == list(work.names)


def test_wrong_arguments_are_an_error_not_a_crash(units_of: Units, host: TvmTarget, tmp_path: Path) -> None:
    work = single(map_layer("add", (8, 3, 3), 8, activation_format="int8"))
    link_network(plan_network(work, units_of(work)), host, tmp_path / "net.so")
    module = tvm.runtime.load_module(str(tmp_path / "net.so"))
    tensor = tvm.runtime.tensor(np.zeros(8, np.uint8))
    with pytest.raises(TypeError, match="takes 4 tensors"):
        module["main"](tensor, tensor, tensor)
