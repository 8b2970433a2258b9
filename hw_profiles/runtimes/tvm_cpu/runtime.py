"""TVM as a runtime: layers compiled and tuned once, networks linked from them."""

import hashlib
import itertools
import os
import shutil
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.in_context import alone
from hw_profiles.measure.interleave import Timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.reference.random_units import random_tensor, random_units
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import (
    Array,
    Arrays,
    Artifact,
    ArtifactKind,
    Dialect,
    Job,
    KernelTime,
    TensorInfo,
)
from hw_profiles.runtimes.transports.local import Local
from hw_profiles.runtimes.tvm_cpu.compile import one_line
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan, link_network, pack_parameters, plan_network
from hw_profiles.runtimes.tvm_cpu.self_contained import SelfContained, SelfContainedExecutable
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target
from hw_profiles.runtimes.tvm_cpu.templates import WEIGHTS, is_supported, refusal
from hw_profiles.runtimes.tvm_cpu.tuning import Database, TrialRunner, run_locally, tune
from hw_profiles.runtimes.tvm_cpu.unit import CompiledUnit

Units = Mapping[str, CompiledUnit | str]  # by layer key: compiled, or why it is not


def default_database() -> Path:
    """Return where tuned units are kept: `tuning` in Trilobit's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "trilobit" / "tuning"


@dataclass(frozen=True, eq=False)
class Program(Artifact):
    """A function of a shared library, and what to run it with.

    Attributes:
        symbol: its name.
        arrays: the first one is read, the last one is written.
        layers: keys of what it computes, in order.
    """

    kind: ArtifactKind = "library"
    symbol: str = "main"
    arrays: tuple[Array, ...] = ()
    layers: tuple[str, ...] = ()


# Runs something with what tries schedules out: here, or on a board that is borrowed meanwhile.
Trials = Callable[[Callable[[TrialRunner], Units]], Units]


class TvmExecutable:
    """A linked network, loaded on this machine, with tensors of its own."""

    def __init__(self, module: Any, program: Program) -> None:
        self._module, self._program = module, program
        self._tensors = [tvm.runtime.tensor(array) for array in program.arrays]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The image, channels last."""
        first = self._program.arrays[0]
        return (TensorInfo("image", first.shape, str(first.dtype)),)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the last layer gives."""
        last = self._program.arrays[-1]
        return (TensorInfo("output", last.shape, str(last.dtype)),)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the output for one image."""
        self._tensors[0].copyfrom(np.ascontiguousarray(inputs["image"]))
        self._module[self._program.symbol](*self._tensors)
        return {"output": self._tensors[-1].numpy()}

    def timed(
        self, clock: Clock = "wall", *, batch: int | None = None, example: Arrays | None = None
    ) -> Timed:
        """Return runs by the wall, taken without Python between them, whatever the clock."""
        if example is not None:
            self._tensors[0].copyfrom(np.ascontiguousarray(example["image"]))
        return timed(self._module, self._program.symbol, self._tensors)

    def kernels(self) -> Counter[str]:
        """Return the keys of its layers: each is a kernel of its own."""
        return Counter(self._program.layers)


class TvmRuntime:
    """Own kernels: layers compiled and tuned once, networks linked from them.

    Args:
        target: what is compiled for.
        database: of tuned layers.
        trials: where schedules are tried out.
    """

    def __init__(self, target: TvmTarget, database: Database, trials: Trials) -> None:
        self.target = target
        self.database, self.trials = database, trials
        self._modules: dict[str, Any] = {}
        self._built: dict[str, SelfContained] = {}  # by digest, their code left out
        self._libraries: Path | None = None
        self._numbers = itertools.count()  # of files
        self._making = threading.Lock()  # several threads link for several boards

    @property
    def artifact(self) -> ArtifactKind:
        """Shared libraries, linked here."""
        return "library"

    @property
    def clock(self) -> Clock:
        """One thread does all the work."""
        return "thread"

    @property
    def dialect(self) -> Dialect:
        """Layers compute on integers as they are."""
        return Dialect("integer", "uint8")

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """Those of its templates."""
        return frozenset((weights, act) for act, known in WEIGHTS.items() for weights in known)

    @property
    def integer_kernels(self) -> frozenset[str]:
        """None: its kernels are called by their layers."""
        return frozenset()

    def describe(self) -> DeviceInfo:
        """Return the compiler and what it compiles for."""
        return DeviceInfo(
            name=f"tvm-{self.target.mcpu}-1t",
            cpu=cpu_model(),
            engine="apache-tvm",
            engine_version=tvm.__version__,
            provider=self.target.name,
            integer_sums=sums_of(self.target).value,
        )

    def supports(self, layer: Layer) -> bool:
        """Return whether there is a kernel for this layer."""
        return is_supported(layer)

    def why_not(self, layer: Layer) -> str:
        """Return why there is none."""
        return refusal(layer) or ""

    def build(self, jobs: Sequence[Job]) -> list[Artifact | str]:
        """Compile and tune what the database lacks, and link each network.

        Raises:
            TrilobitError: no C compiler, or a full disk: nothing that another workload would do without.
        """
        works = [job.workload for job in jobs]
        units = self.trials(lambda runner: compiled_units(works, self.database, runner))
        return [self._linked(work, units) for work in works]

    def compile(self, artifact: Artifact) -> TvmExecutable | SelfContainedExecutable:
        """Load a library: a self-contained one from a file of its own, which goes with what it is loaded as;
        others once under each name, since a file must not change while it is loaded.

        Raises:
            TypeError: it was not built here; that is machine code of others.
        """
        path = self._folder() / _file_name(artifact.content)
        if path.name in self._built:
            return self._self_contained(artifact.content, self._built[path.name])
        if not isinstance(artifact, Program):
            raise TypeError("a library that was not built here runs in a process of its own only")
        if path.name not in self._modules:
            path.write_bytes(artifact.content)
            self._modules[path.name] = tvm.runtime.load_module(str(path))
        return TvmExecutable(self._modules[path.name], artifact)

    def _self_contained(self, content: bytes, built: SelfContained) -> SelfContainedExecutable:
        path = self._folder() / f"{next(self._numbers)}.so"
        path.write_bytes(content)
        executable = SelfContainedExecutable(path, built.signature, built.layers)
        weakref.finalize(executable, path.unlink, missing_ok=True)  # what is loaded of it stays
        return executable

    def remember(self, artifact: SelfContained) -> None:
        """Note that a library was built in this process, so that its machine code may run here."""
        self._built[_file_name(artifact.content)] = replace(artifact, content=b"")

    def kernel_times(self, artifact: Artifact, runs: int) -> tuple[KernelTime, ...]:
        """Return what the kernels of a library that was built here took when they were tried out, however
        many `runs` are asked for: each computes by itself, so that it takes as long inside a network.
        """
        built = self._built.get(_file_name(artifact.content))
        return built.kernels if built is not None else ()

    def expected_kernels(self, workload: Workload) -> Counter[str]:
        """Return the keys of the layers."""
        return Counter(layer.key() for layer in workload.layers)

    def _folder(self) -> Path:
        """Return the folder of networks, linked once for all sessions; it goes with the runtime."""
        with self._making:
            if self._libraries is None:
                self._libraries = Path(tempfile.mkdtemp(prefix="trilobit-"))
                weakref.finalize(self, shutil.rmtree, self._libraries, ignore_errors=True)
            return self._libraries

    def _linked(self, workload: Workload, units: Units) -> Artifact | str:
        """Return a network linked from its layers, or why it cannot be."""
        broken = [(key, unit) for key in _keys(workload) if isinstance(unit := units[key], str)]
        if broken:
            return "{}: {}".format(*broken[0])
        try:
            return self.link(
                plan_network(workload, {k: u for k, u in units.items() if not isinstance(u, str)})
            )
        except TrilobitError:
            raise
        except Exception as error:
            return one_line(error)

    def link(self, plan: NetworkPlan) -> Artifact:
        """Return a network as what this runtime compiles, with random numbers."""
        name = f"{hashlib.sha256(repr(plan.workload).encode()).hexdigest()[:24]}.linked"
        library = self._folder() / name
        if not library.exists():
            unfinished = library.with_suffix(f".{threading.get_ident()}")
            link_network(plan, self.target, unfinished)
            unfinished.replace(library)
        arrays = network_arrays(plan, random_parameters(plan, self.target))
        return Program(library.read_bytes(), arrays=tuple(arrays), layers=tuple(_keys(plan.workload)))


def open_tvm(*, target: str = "host", database: Path | None = None) -> MeasuredDevice:
    """Return own kernels on this machine.

    Args:
        target: `host`, or a processor as `hw_profiles.runtimes.tvm_cpu.target.parse_target` reads it.
        database: folder of tuned layers; `default_database()` if not given.

    Raises:
        TrilobitError: LLVM does not know the target, or this machine does not run its code.
    """
    parsed = parse_target(target)
    if not parsed.local:
        raise TrilobitError(
            f"this machine does not run code for {parsed.name!r}; give target='host', "
            "or measure on the board itself over RPC"
        )
    tuned = Database(database or default_database(), parsed)
    runtime = TvmRuntime(parsed, tuned, lambda use: use(run_locally))
    # layers are called one after the other: a neighbour changes nothing
    return MeasuredDevice(runtime, Local(), alone)


def compiled_units(
    workloads: Sequence[Workload], database: Database, runner: TrialRunner | None
) -> dict[str, CompiledUnit | str]:
    """Return all units of the workloads by layer key: tuned, or the reason why there is none."""
    layers = [layer for work in workloads for layer in work.layers]
    supported = [layer for layer in layers if is_supported(layer)]
    units = {layer.key(): unit for layer, unit in tune(supported, database, runner)}
    unsupported = {layer.key(): refusal(layer) or "" for layer in layers if layer.key() not in units}
    return units | unsupported


def random_parameters(plan: NetworkPlan, target: TvmTarget) -> NDArray[np.uint8]:
    """Return parameters of a network that is only timed, the same on every call."""
    numbers = random_units(plan.workload, np.random.default_rng(0), sums=sums_of(target))
    return pack_parameters(plan, numbers, target)


def network_arrays(plan: NetworkPlan, parameters: Array) -> list[Array]:
    """Return what to run a linked network with: a random image, the parameters, a workspace, an output."""
    image, _, workspace, output = plan.arguments
    pixels = random_tensor(image.shape, plan.workload.in_format, np.random.default_rng(0))
    return [pixels, parameters, *(np.zeros(each.shape, each.dtype) for each in (workspace, output))]


def _file_name(content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()[:24]}.so"


def _keys(workload: Workload) -> Iterator[str]:
    return (layer.key() for layer in workload.layers)


def timed(module: Any, symbol: str, tensors: Sequence[Any]) -> Timed:
    """Return a function of a loaded library as something to be timed where its tensors are: runs follow each
    other without Python in between.
    """
    evaluators: dict[int, Any] = {}

    def runs(count: int) -> float:
        if count not in evaluators:
            evaluators[count] = module.time_evaluator(symbol, tensors[0].device, number=count, repeat=1)
        return float(evaluators[count](*tensors).mean) * count

    return runs


def timed_library(library: Path, arrays: Sequence[Array], sessions: int) -> list[Timed]:
    """Return a linked network as something to be timed on this machine, with tensors of their own for each
    session.

    The file must not have been loaded under this name before with other contents.
    """
    module = tvm.runtime.load_module(str(library))
    return [timed(module, "main", [tvm.runtime.tensor(array) for array in arrays]) for _ in range(sessions)]
