"""What each kernel of a file takes inside its network, as ONNX Runtime's own profiler says.

Durations are whole microseconds, and their sum is a few percent off the time of the network: good for which
part of a network takes how much, not for how long it takes.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from hw_profiles.runtimes.runtime import Arrays, KernelTime

QUARTILE = 25  # percent
SETTLING_RUNS = 2  # that allocate and choose
SUFFIX = "_kernel_time"


def kernel_times(session: Any, optimised: Path, inputs: Arrays, runs: int) -> tuple[KernelTime, ...]:
    """Return the kernels of a session in the order in which its graph lists them, lower quartiles of `runs`:
    what disturbs a run, by the wall, only makes it longer.

    Kernels inside the branches and loops of a graph are part of the one that holds these.

    Args:
        session: one that profiles, for this call alone.
        optimised: the graph that it really runs.
    """
    for _ in range(SETTLING_RUNS + runs):
        session.run(None, dict(inputs))
    events = json.loads(Path(session.end_profiling()).read_text())
    return times_of(onnx.load(optimised, load_external_data=False).graph.node, events, runs)


def times_of(
    nodes: Iterable[onnx.NodeProto], events: list[Mapping[str, Any]], runs: int
) -> tuple[KernelTime, ...]:
    """Return what the profiler recorded of the nodes of the graph that really ran, in the last `runs`."""
    durations_s = _durations_s(events, runs)
    return tuple(
        KernelTime(
            node.name,
            node.op_type,
            durations_s.get(node.name, 0.0),
            tuple(filter(None, node.input)),
            tuple(filter(None, node.output)),
        )
        for node in nodes
    )


def _durations_s(events: list[Mapping[str, Any]], runs: int) -> dict[str, float]:
    """Return the lower quartile of each kernel's duration over the last runs, by the name of its node."""
    durations_us: dict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            durations_us[event["name"].removesuffix(SUFFIX)].append(event["dur"])
    return {name: 1e-6 * float(np.percentile(us[-runs:], QUARTILE)) for name, us in durations_us.items()}
