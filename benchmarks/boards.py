"""What measuring over ssh costs: this machine as a board, over its loopback, beside this machine itself.

Starts an sshd of its own (own keys, own port; openssh-server must be installed) and measures through ONNX
Runtime on one thread, here and there in turns:

- median times of networks of a space, over there divided by here: the same method on the same core, so any
  difference is the transport's. Their spread beside it is that of the same ratio, here divided by here.
- the time of a profile of so many units, without waiting for quiet, over there divided by here.

`--device TEXT` measures another board instead, such as ssh:pi@10.0.0.5/ort: then the ratios are of the two
machines.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from harness import Row, argument_parser, interquartile_range, report
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.measurement import MeasurePlan, plan_on
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profiler import profile_layers
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Job
from hw_profiles.runtimes.transports.ssh import PROGRAM
from nas.stages.profile import emit_with_random_numbers
from predictors.table import distinct_layers
from supernet.families.family import Family, load_family
from tests.hw_profiles.transports.sshd import served, why_not

FARTHEST, LONGEST = 0.02, 1.3  # targets: of median times, of the time of a profile
NETWORKS, UNITS = 12, 300
EMIT = partial(emit_with_random_numbers, seed=0)
Floats = NDArray[np.float64]


def main() -> None:
    """Print the table, write the JSON."""
    parser = argument_parser(__doc__, seeds=3)
    parser.add_argument("--device", default="", metavar="TEXT", help="another board")
    parser.add_argument("--space", default="cifar-mbconv")
    parser.add_argument("--units", type=int, default=UNITS, metavar="N", help="of the profile")
    arguments = parser.parse_args()
    units, networks = (30, 4) if arguments.quick else (arguments.units, NETWORKS)
    family = load_family(arguments.space, in_channels=3, classes=10)
    with ExitStack() as stack:
        device = arguments.device or stack.enter_context(loopback())
        here, there = open_device("ort"), open_device(device)
        assert here.runtime is not None
        plan = replace(plan_on(MeasurePlan(), here.runtime.clock), energy_s=0.0)
        rows = [
            *time_rows(here, there, plan, sampled(family, networks), arguments.seeds),
            *profile_rows(here, there, plan, layers_of(family, units), arguments.seeds),
        ]
    report("boards", rows, arguments.json)


@contextmanager
def loopback() -> Iterator[str]:
    """Run a server on this machine, and give the device that is behind it."""
    if reason := why_not():
        raise TrilobitError(f"no board: {reason}")
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as server:
        os.environ[PROGRAM] = server.program()
        yield f"ssh:board/ort:python={sys.executable},folder={name}/cache"


def sampled(family: Family, count: int) -> list[Workload]:
    """Return random networks."""
    space = family.space()
    return [family.workload(space.candidate(g)) for g in space.sample(count, rng=np.random.default_rng(0))]


def layers_of(family: Family, count: int) -> list[Layer]:
    """Return random units."""
    layers = distinct_layers(family.space(), family.terms())
    chosen = np.random.default_rng(0).permutation(len(layers))[:count]
    return [layers[i] for i in sorted(chosen)]


def medians_s(device: Device, works: list[Workload], plan: MeasurePlan) -> Floats:
    """Return the median time of each network (n,).

    Raises:
        RuntimeError: one does not run.
    """
    measured = device.measure([Job(work, partial(EMIT, work)) for work in works], plan)
    if errors := [m.error for m in measured if m.error is not None]:
        raise RuntimeError(errors[0])
    return np.array([m.median_s for m in measured])


def time_rows(
    here: Device, there: Device, plan: MeasurePlan, works: list[Workload], repeats: int
) -> Iterator[Row]:
    """Yield how far apart median times are, in turns: here, there, here again."""
    medians_s(there, works[:1], replace(plan, waiting_s=0.0))  # connects, and learns its usual speed
    off, again, worst = list[float](), list[float](), list[float]()
    for _ in range(repeats):
        first, board, second = (medians_s(device, works, plan) for device in (here, there, here))
        ratios = board / ((first + second) / 2)
        off.append(float(np.median(ratios)) - 1)
        worst.append(float(np.abs(ratios - 1).max()))
        again.append(float(np.median(second / first)) - 1)
    task = f"{len(works)} networks"
    figures = np.abs(off)
    yield Row(
        *(task, "median time over there against here, off by", "share", "lower"),
        float(np.median(figures)),
        interquartile_range(figures),
        {"here against here": float(np.median(np.abs(again)))},
        target=FARTHEST,
    )
    farthest = float(np.median(worst)), interquartile_range(np.array(worst))
    yield Row(task, "that of the worst network", "share", "lower", *farthest)


def profile_rows(
    here: Device, there: Device, plan: MeasurePlan, layers: list[Layer], repeats: int
) -> Iterator[Row]:
    """Yield how much longer a profile takes there, in turns."""
    ratios, seconds = list[float](), dict[str, list[float]]()
    for _ in range(repeats):
        for name, device in (("here", here), ("there", there)):
            seconds.setdefault(name, []).append(profile_s(device, layers, replace(plan, waiting_s=0.0)))
        ratios.append(seconds["there"][-1] / seconds["here"][-1])
    yield Row(
        *(f"profile of {len(layers)} units", "time over there against here", "x", "lower"),
        float(np.median(ratios)),
        interquartile_range(np.array(ratios)),
        {f"{name}, s": float(np.median(values)) for name, values in seconds.items()},
        target=LONGEST,
    )


def profile_s(device: Device, layers: list[Layer], plan: MeasurePlan) -> float:
    """Return how long a profile of these units takes."""
    start, empty = time.monotonic(), DeviceProfile(device.describe(), plan)
    steps = profile_layers(device, empty, layers, emit=EMIT, rng=np.random.default_rng(0), again=False)
    *_, profile = steps
    if missing := len(profile.missing(layers)):
        raise RuntimeError(f"{missing} units were not measured")
    return time.monotonic() - start


if __name__ == "__main__":
    main()
