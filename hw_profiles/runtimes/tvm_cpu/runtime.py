"""The TVM backend: units compiled and tuned once, networks linked from them, all measured in turns."""

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tvm

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import LayerSpec
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.backend import DeviceInfo, Job
from hw_profiles.measure.energy import Meter, find_meter, joules_of
from hw_profiles.measure.host import cpu_model, pinned
from hw_profiles.measure.in_context import Probe, alone
from hw_profiles.measure.interleave import Pulse, Timed, interleaved
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.reference.integer_ops import random_network, random_tensor
from hw_profiles.runtimes.tvm_cpu.compile import one_line
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan, link_network, pack_parameters, plan_network
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target
from hw_profiles.runtimes.tvm_cpu.templates import ACTIVATIONS, is_supported
from hw_profiles.runtimes.tvm_cpu.tuning import Database, TrialRunner, run_locally, tune
from hw_profiles.runtimes.tvm_cpu.unit import Array, CompiledUnit

Prepared = TypeVar("Prepared")


def default_database() -> Path:
    """Where tuned units are kept: `tuning` in Trilobit's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "trilobit" / "tuning"


class OwnKernels:
    """What a backend says of a unit that it measures with these kernels."""

    def supports(self, layer: LayerSpec) -> bool:
        return is_supported(layer)

    def why_not(self, layer: LayerSpec) -> str:
        pair = f"{layer.weight_format} weights on {layer.activation_format} activations"
        if layer.op == "mbconv":
            return "these kernels run single layers, no whole block (mbconv); ort runs those"
        if layer.activation not in ACTIVATIONS:
            return f"there is no kernel for a {layer.op} with {layer.activation}"
        return f"there is no kernel for a {layer.op} of {pair}"

    def probe(self, layer: LayerSpec) -> Probe:
        return alone(layer)  # units are called one after the other: a neighbour changes nothing


class TvmBackend(OwnKernels):
    """Measures own kernels on this machine.

    The time is the elapsed one, taken without Python between the runs; `plan.clock` makes no difference.

    Args:
        target: `host`, or a processor as `hw_profiles.runtimes.tvm_cpu.target.parse_target` reads it.
        database: folder of tuned units; `default_database()` if not given.
        threads: must be 1.

    Raises:
        TrilobitError: LLVM does not know the target, this machine does not run its code, or more threads
            are asked for.
    """

    def __init__(self, *, target: str = "host", database: Path | None = None, threads: int = 1) -> None:
        if threads != 1:
            raise TrilobitError(f"the tvm backend runs on 1 thread, got {threads}")
        self._target = parse_target(target)
        if not self._target.local:
            raise TrilobitError(
                f"this machine does not run code for {self._target.name!r}; give target='host', "
                "or measure on the board itself over RPC"
            )
        self._database = Database(database or default_database(), self._target)
        self._meter = find_meter()
        self._pulse: Pulse | None = None  # found on the core that is measured on

    def describe(self) -> DeviceInfo:
        return DeviceInfo(
            name=f"tvm-{self._target.mcpu}-1t",
            cpu=cpu_model(),
            engine="apache-tvm",
            engine_version=tvm.__version__,
            provider=self._target.name,
            energy=self._meter.describe() if isinstance(self._meter, Meter) else self._meter,
            integer_sums=sums_of(self._target).value,
        )

    @property
    def timed(self) -> bool:
        return True

    @property
    def parallel(self) -> int:
        return 1

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        # not pinned, for the thread that compiles would be too
        units = compiled_units([job.workload for job in jobs], self._database, run_locally)
        with pinned(plan.core):
            ready_in_sessions = partial(timed_library, sessions=plan.sessions)
            runs = [
                prepare(job.workload, units, self._target, self._library(job.workload), ready_in_sessions)
                for job in jobs
            ]
            self._pulse = self._pulse or Pulse()
            ready = [sessions for sessions in runs if not isinstance(sessions, str)]
            contexts = [job.context for job, run in zip(jobs, runs, strict=True) if not isinstance(run, str)]
            samples = interleaved(ready, plan, self._pulse, contexts)
            firsts = [sessions[0] for sessions in ready]
            measured = map(Measurement.of, samples, joules_of(firsts, self._meter, seconds=plan.energy_s))
        return [Measurement(error=run) if isinstance(run, str) else next(measured) for run in runs]

    @cached_property
    def _libraries(self) -> Path:
        """A folder of networks, linked once for all sessions; it goes with the backend."""
        folder = Path(tempfile.mkdtemp(prefix="trilobit-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _library(self, workload: Workload) -> Path:
        return self._libraries / f"{hashlib.sha256(repr(workload).encode()).hexdigest()[:24]}.so"


def prepare(
    workload: Workload,
    units: Mapping[str, CompiledUnit | str],
    target: TvmTarget,
    library: Path,
    ready: Callable[[Path, Sequence[Array]], Prepared],
) -> Prepared | str:
    """Link the workload to `library`, unless it is there: what `ready` makes of that and of its arguments, or
    why it cannot be.

    Raises:
        TrilobitError: no C compiler, or a full disk: nothing that another workload would do without.
    """
    broken = [(key, unit) for key in _keys(workload) if isinstance(unit := units[key], str)]
    if broken:
        return "{}: {}".format(*broken[0])
    try:
        plan = plan_network(workload, {k: u for k, u in units.items() if not isinstance(u, str)})
        if not library.exists():
            link_network(plan, target, library)
        numbers = random_network(workload, np.random.default_rng(0), sums=sums_of(target))
        return ready(library, network_arrays(plan, pack_parameters(plan, numbers, target)))
    except TrilobitError:
        raise
    except Exception as error:
        return one_line(error)


def compiled_units(
    workloads: Sequence[Workload], database: Database, runner: TrialRunner | None
) -> dict[str, CompiledUnit | str]:
    """All units of the workloads by layer key: tuned, or the reason why there is none."""
    layers = [layer for work in workloads for layer in work.layers]
    supported = [layer for layer in layers if is_supported(layer)]
    units = {layer.key(): unit for layer, unit in tune(supported, database, runner)}
    unsupported = {layer.key(): "no kernel for this unit" for layer in layers if layer.key() not in units}
    return units | unsupported


def network_arrays(plan: NetworkPlan, parameters: Array) -> list[Array]:
    """What to run a linked network with: a random image, the parameters, a workspace, an output."""
    image, _, workspace, output = plan.arguments
    pixels = random_tensor(image.shape, plan.workload.in_format, np.random.default_rng(0))
    return [pixels, parameters, *(np.zeros(each.shape, each.dtype) for each in (workspace, output))]


def _keys(workload: Workload) -> Iterator[str]:
    return (layer.key() for layer in workload.layers)


def timed(module: Any, symbol: str, tensors: Sequence[Any]) -> Timed:
    """A function of a loaded library as something to be timed where its tensors are: runs follow each other
    without Python in between.
    """
    evaluators: dict[int, Any] = {}

    def runs(count: int) -> float:
        if count not in evaluators:
            evaluators[count] = module.time_evaluator(symbol, tensors[0].device, number=count, repeat=1)
        return float(evaluators[count](*tensors).mean) * count

    return runs


def timed_library(library: Path, arrays: Sequence[Array], sessions: int) -> list[Timed]:
    """A linked network as something to be timed on this machine, with tensors of their own for each session.

    The file must not have been loaded under this name before with other contents.
    """
    module = tvm.runtime.load_module(str(library))
    return [timed(module, "main", [tvm.runtime.tensor(array) for array in arrays]) for _ in range(sessions)]
