"""Networks of the comparison on the device: exported, tested on the test part through their files, timed in
turns.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from joint_fixed import FixedNetwork
from joint_methods import Front, Task, fixed_networks, spread
from numpy.typing import NDArray

from hw_profiles.measure.measurement import Measurement
from hw_profiles.profiles.whole_networks import measure_within_budget
from hw_profiles.runtimes.runtime import Job, single_output
from nas.checks.parity import file_outputs
from nas.emit.to_onnx import emit
from nas.evaluation.builder import NetworkBuilder
from nas.export.library.to_tvm import build_library
from nas.run.run import Run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import Genomes

FIXED = "fixed network, int8"
PLAIN = "plain network of the space, int8"
WAITING_S = 60.0  # for quiet windows


@dataclass(frozen=True, eq=False)
class Chosen:
    """A network to export.

    Attributes:
        method: that found it.
        genome: (g,); none of a network outside of the space.
        build: gives it with its weights.
        expected: predicted latency in s and accuracy on search-validation, where there are predictions.
    """

    method: str
    genome: Genomes | None
    build: Callable[[], QuantizedGraph]
    expected: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Tested:
    """An exported network.

    Attributes:
        chosen: what it is.
        latency: measured, in turns with all others.
        right: (images,) whether its file is right about each test image.
    """

    chosen: Chosen
    latency: Measurement
    right: NDArray[np.bool_]

    @property
    def method(self) -> str:
        """That found it."""
        return self.chosen.method


def of_space(builder: NetworkBuilder, task: Task, method: str, genome: Genomes) -> Chosen:
    """A network of the supernet."""
    candidate = task.space.candidate(genome)
    expected = {
        "predicted accuracy on search-validation, %": 100 * float(task.accuracy(genome[None])[0]),
        "predicted latency, us": 1e6 * float(task.latency_s(genome[None])[0]),
    }
    return Chosen(method, genome, partial(builder.network, candidate), expected)


def choose(
    builder: NetworkBuilder,
    task: Task,
    fronts: Mapping[str, Front],
    each: int,
    fixed: Sequence[FixedNetwork],
) -> list[Chosen]:
    """Every width of the fixed network, or without one, of the plain one of the space; of each front up to
    `each`, evenly over the latencies that all fronts reach, and half as many below, where others do not.
    """
    run, network_of = builder.run, partial(of_space, builder, task)
    chosen = [Chosen(FIXED, None, partial(network.quantized, run)) for network in fixed]
    if not fixed:
        chosen = [network_of(PLAIN, genome) for genome in fixed_networks(task)]
    low_s = max(front.latency_s[0] for front in fronts.values())
    high_s = min(front.latency_s[-1] for front in fronts.values())
    for name, front in fronts.items():
        rows = spread(front, each, low_s, high_s)
        if front.latency_s[0] < low_s:
            rows = list(dict.fromkeys((*spread(front, each // 2 + 1, high_s=low_s), *rows)))
        chosen += [network_of(name, front.genomes[row]) for row in rows]
    return chosen


def test(run: Run, chosen: Sequence[Chosen], windows: int) -> list[Tested]:
    """Export, test on the test part, and time everything in one run, in so many windows each."""
    jobs, right = list[Job](), list[NDArray[np.bool_]]()
    for i, choice in enumerate(chosen):
        network = choice.build()
        model = emit(network, batch=run.config.device.batch)
        jobs.append(Job(network.workload, partial(bytes, model)))
        right.append(_labels(run, network, model) == run.images.test.labels)
        print(f"{i + 1} of {len(chosen)}: {choice.method}, {right[-1].mean():.4f}", file=sys.stderr)
    plan = replace(run.plan, rounds=windows, waiting_s=WAITING_S)
    latencies = measure_within_budget(run.device, jobs, plan)
    for latency in latencies:
        if latency.error is not None:
            raise RuntimeError(latency.error)
    return [Tested(*values) for values in zip(chosen, latencies, right, strict=True)]


def _labels(run: Run, network: QuantizedGraph, model: bytes) -> NDArray[np.int64]:
    """(n,) what the exported network predicts for the test part: the ONNX file, or TVM's library."""
    data = run.images
    if run.device.describe().engine != "apache-tvm":
        return file_outputs(model, data.test, data).argmax(axis=1)
    with tempfile.TemporaryDirectory() as folder:
        executable = build_library(network).written(Path(folder))
        pixels = data.inputs(data.test, network.workload.in_shape[1]).contiguous().numpy()
        return np.asarray(single_output(executable, pixels).argmax(axis=1))
