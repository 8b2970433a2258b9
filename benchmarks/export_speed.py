"""Whole exported networks: our integer-only library against ONNX Runtime on the same network in int8 and in
fp32, what an export costs, and how large its files are.

Random architectures of a space with random weights (neither time nor size depends on them), batch 1, one
thread, the three forms of a network in turns on one pinned core in the moments when it is left alone. Every
form reads the same fp32 image. Ours is called by TVM's timer, ORT's through preallocated tensors. The first
run tunes the units; how long a library takes is measured after that.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import Row, argument_parser, interquartile_range, one_core, report
from tvm_vs_ort import instructions_of

from hw_profiles.graph.counts import macs
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.interleave import ReferenceWorkload, Timed, interleaved
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.reference.integer_sums import WIDEST_EXACT
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.link import link_network, pack_parameters
from hw_profiles.runtimes.tvm_cpu.runtime import network_arrays, timed_library
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target
from nas.emit.to_onnx import emit, random_network
from nas.export.library.to_tvm import build_library, unit_numbers
from supernet.families.family import load_family
from supernet.graph.quantized_graph import Parameters, QuantizedGraph

FORMATS = ("fp32", "int8", "int4")
FASTER = {"ONNX Runtime int8": 1.25, "ONNX Runtime fp32": 2.0}
ONNX_S, LIBRARY_S = 5.0, 120.0
SIZES = {"int8": 0.30, "int4": 0.20}  # of the fp32 file
ROUNDS = 40


def uniform_networks(space_name: str, n: int) -> list[dict[str, Workload]]:
    """Random architectures, each with every layer in one of the formats."""
    family = load_family(space_name, in_channels=3, classes=10, formats=FORMATS)
    space = family.space()
    columns = [column for column, choice in enumerate(space.choices) if choice.kind == "precision"]
    networks = []
    for genome in space.sample(n, rng=np.random.default_rng(0)):
        forms = {}
        for gene, fmt in enumerate(FORMATS):
            genome[columns] = gene
            forms[fmt] = family.workload(space.candidate(space.canonical(genome[None])[0]))
        networks.append(forms)
    return networks


def made_for(work: Workload, target: TvmTarget) -> QuantizedGraph:
    """The network with random weights, in the codes that the target's fastest kernels take."""
    network = random_network(work, rng=np.random.default_rng(0))
    if not sums_of(target).reduced:
        return network
    layers = dict(zip(network.workload.names, network.workload.layers, strict=True))
    parameters = {
        name: narrowed(each) if layers[name].weight_format == "int8" else each
        for name, each in network.parameters.items()
    }
    return replace(network, parameters=parameters)


def narrowed(parameters: Parameters) -> Parameters:
    """Clip weights to the codes whose sums every processor adds up exactly."""
    codes = np.clip(parameters.weight.codes, -WIDEST_EXACT, WIDEST_EXACT)
    return replace(parameters, weight=replace(parameters.weight, codes=codes))


def forms_of(
    works: Mapping[str, Workload], folder: Path, plan: MeasurePlan, target: TvmTarget
) -> dict[str, list[Timed]]:
    """The network's three forms, ready to be timed."""
    made = {fmt: made_for(works[fmt], target) for fmt in ("fp32", "int8")}
    library = build_library(made["int8"], target=target.name)
    assert library.integer_only
    path = folder / f"{len(list(folder.iterdir()))}.so"
    link_network(library.plan, target, path)
    arrays = network_arrays(library.plan, pack_parameters(library.plan, unit_numbers(made["int8"]), target))
    files = {f"ONNX Runtime {fmt}": emit(network) for fmt, network in made.items()}
    ort = {name: [host_runtime().compile(Artifact(model)).timed(plan.clock)] for name, model in files.items()}
    return {"ours": timed_library(path, arrays, sessions=1), **ort}


def costs(works: Mapping[str, Workload], target: TvmTarget) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of both kinds of export, and bytes of the file in each format."""
    sizes, took = {}, {}
    for fmt, work in works.items():
        network = random_network(work, rng=np.random.default_rng(0))
        start = time.perf_counter()
        sizes[fmt] = len(emit(network))
        took[f"ONNX {fmt}"] = time.perf_counter() - start
    start = time.perf_counter()
    build_library(made_for(works["int8"], target), target=target.name)
    took["library"] = time.perf_counter() - start
    return took, sizes


def speed_rows(times_s: list[dict[str, float]], mega: list[float]) -> list[Row]:
    """Milliseconds of each network, and how many times as fast ours is."""
    rows = []
    for i, (time_s, size) in enumerate(zip(times_s, mega, strict=True)):
        peers = {name: 1e3 * seconds for name, seconds in time_s.items() if name != "ours"}
        rows.append(
            Row(f"network {i}, {size:.1f} MMACs", "latency", "ms", "lower", 1e3 * time_s["ours"], 0.0, peers)
        )
    for peer, target in FASTER.items():
        ratios = np.array([time_s[peer] / time_s["ours"] for time_s in times_s])
        row = (float(np.median(ratios)), interquartile_range(ratios), {"least": float(ratios.min())}, target)
        rows.append(Row(f"integer-only library against {peer}", "times as fast", "1", "higher", *row))
    return rows


def cost_rows(exports: list[tuple[dict[str, float], dict[str, int]]]) -> list[Row]:
    """Seconds of an export and sizes of files."""
    slowest = {name: [took[name] for took, _ in exports] for name in exports[0][0]}
    rows = [
        Row(
            *(
                f"export, {name}",
                "time",
                "s",
                "lower",
                float(np.median(taken)),
                interquartile_range(np.array(taken)),
            ),
            {"longest": max(taken)},
            LIBRARY_S if name == "library" else ONNX_S,
        )
        for name, taken in slowest.items()
    ]
    for fmt, target in SIZES.items():
        shares = np.array([sizes[fmt] / sizes["fp32"] for _, sizes in exports])
        row = (
            float(np.median(shares)),
            interquartile_range(shares),
            {"largest": float(shares.max())},
            target,
        )
        rows.append(Row(f"file in {fmt}", "size", "of the fp32 file", "lower", *row))
    return rows


def main() -> None:
    """Run, print and write."""
    parser = argument_parser(__doc__, seeds=6)
    parser.add_argument("--target", type=parse_target, default="host", help="what ours is compiled for")
    parser.add_argument("--space", default="cifar-mbconv", help="whose networks (default: %(default)s)")
    arguments = parser.parse_args()
    target: TvmTarget = arguments.target
    networks = uniform_networks(arguments.space, 1 if arguments.quick else arguments.seeds)
    mega = [sum(map(macs, forms["fp32"].layers)) / 1e6 for forms in networks]
    with tempfile.TemporaryDirectory() as name:
        plan = MeasurePlan(rounds=8 if arguments.quick else ROUNDS)
        ready = [
            forms_of(forms, Path(name), plan, target) for forms in networks
        ]  # tunes, which may use every core
        exports = [costs(forms, target) for forms in networks]
        with one_core():
            reference, times_s = ReferenceWorkload(), []
            for forms in ready:
                samples = interleaved(list(forms.values()), plan, reference)
                medians = (float(np.median(each.seconds)) for each in samples)
                times_s.append(dict(zip(forms, medians, strict=True)))
    measured = [*speed_rows(times_s, mega), *cost_rows(exports)]
    report("export_speed", measured, arguments.json, instructions_of(target))


if __name__ == "__main__":
    main()
