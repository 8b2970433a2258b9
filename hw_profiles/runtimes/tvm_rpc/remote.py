"""The TVM backend for boards: compiled and linked here, tuned and measured there."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tvm

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import LayerSpec
from hw_profiles.measure.backend import Backend, DeviceInfo, Job
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.tvm_cpu.compile import compile_candidates, link_shared
from hw_profiles.runtimes.tvm_cpu.dot import register_intrinsics, sums_of
from hw_profiles.runtimes.tvm_cpu.runtime import (
    OwnKernels,
    TvmBackend,
    compiled_units,
    default_database,
    prepare,
)
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target
from hw_profiles.runtimes.tvm_cpu.tuning import Database
from hw_profiles.runtimes.tvm_cpu.unit import Array, CompiledUnit
from hw_profiles.runtimes.tvm_rpc.boards import Board, Boards
from hw_profiles.runtimes.tvm_rpc.session import Program
from hw_profiles.runtimes.tvm_rpc.tracker import parse_tracker

# What tells whether a board is disturbed: as many multiply-adds as the pulse of this machine has.
REFERENCE = LayerSpec("conv", (64, 8, 8), 64)


class RemoteTvmBackend(OwnKernels):
    """Measures own kernels on boards behind TVM's tracker, any number of them at a time.

    A call of `measure` takes a board while it tunes and one while it measures, and gives it back. If one is
    lost, what it was asked for is asked of another one. The boards of a key are taken as alike; what was
    tuned on them is kept apart from what was tuned elsewhere, in a folder of the database for each key.
    Programs are not pinned to a core of the board: start its server with `taskset` if it has several kinds.
    Nothing is connected to before boards are needed, so that a saved profile can be used without them.

    Args:
        tracker: HOST:PORT.
        key: of the boards.
        target: their processor; `host` if they are like this machine.
        database: folder of tuned units; `default_database()` if not given.
        threads: must be 1.

    Raises:
        TrilobitError: LLVM does not know the target, there is no C compiler for it, the tracker is not
            written HOST:PORT, or more threads are asked for. `parallel` and `measure` raise one if no tracker
            answers, no board has that key, or none is left.
    """

    def __init__(
        self, *, tracker: str, key: str, target: str = "host", database: Path | None = None, threads: int = 1
    ) -> None:
        if threads != 1:
            raise TrilobitError(f"the tvm backend runs on 1 thread, got {threads}")
        self._target = parse_target(target)
        self._name = re.sub(r"[^\w.-]", "_", key)
        folder = (database or default_database()) / f"boards-{self._name}"
        self._database = Database(folder, self._target)
        register_intrinsics(self._target)  # before several threads compile: TVM takes each name once
        self.boards = Boards(parse_tracker(tracker), key, _reference(self._target))

    def describe(self) -> DeviceInfo:
        return DeviceInfo(
            name=f"tvm-rpc-{self._name}-1t",
            cpu=self._target.mcpu,
            engine="apache-tvm",
            engine_version=tvm.__version__,
            provider=self._target.name,
            energy="not measured: boards' counters are not read over RPC",
            integer_sums=sums_of(self._target).value,
        )

    @property
    def timed(self) -> bool:
        return True

    @property
    def parallel(self) -> int:
        return self.boards.alive

    def measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> list[Measurement]:
        units = self.boards.run(lambda board: self._tuned(jobs, board))
        with tempfile.TemporaryDirectory() as folder:
            programs = [
                prepare(job.workload, units, self._target, Path(folder) / f"{i}.so", _program)
                for i, job in enumerate(jobs)
            ]
            made = [(p, job.context) for p, job in zip(programs, jobs, strict=True) if not isinstance(p, str)]
            ready, contexts = [program for program, _ in made], [context for _, context in made]
            samples = iter(self.boards.run(lambda board: board.sample(ready, contexts, plan)))
        results = [program if isinstance(program, str) else next(samples) for program in programs]
        return [Measurement(error=one) if isinstance(one, str) else Measurement.of(one) for one in results]

    def _tuned(self, jobs: Sequence[Job], board: Board) -> Mapping[str, CompiledUnit | str]:
        return compiled_units([job.workload for job in jobs], self._database, board.try_out)


def open_tvm(
    *, tracker: str = "", key: str = "", target: str = "host", database: Path | None = None, threads: int = 1
) -> Backend:
    """The TVM backend: of this machine, or of boards where a tracker and a key are given.

    Raises:
        TrilobitError: see `TvmBackend` and `RemoteTvmBackend`; or only one of the two is given.
    """
    if bool(tracker) != bool(key):
        raise TrilobitError(f"boards need a tracker and a key, got tracker {tracker!r} and key {key!r}")
    if tracker:
        return RemoteTvmBackend(tracker=tracker, key=key, target=target, database=database, threads=threads)
    return TvmBackend(target=target, database=database, threads=threads)


def _reference(target: TvmTarget) -> Program:
    """What is run between windows, compiled for the boards with the first schedule."""
    (candidate,) = compile_candidates(REFERENCE, target, limit=1)
    if candidate.error:
        raise TrilobitError(f"cannot compile for {target.name!r}: {candidate.error}")
    arrays = tuple(np.ones(each.shape, each.dtype) for each in candidate.arguments)
    with tempfile.TemporaryDirectory() as folder:
        code, library = Path(folder) / "unit.o", Path(folder) / "unit.so"
        code.write_bytes(candidate.code)
        link_shared(target, [str(code)], library)
        return Program(library.read_bytes(), candidate.symbol, arrays)


def _program(library: Path, arrays: Sequence[Array]) -> Program:
    return Program(library.read_bytes(), "main", tuple(arrays))
