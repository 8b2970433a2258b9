"""Boards behind TVM's tracker as a transport: compiled and linked here, tuned and measured there."""

import re
import tempfile
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.measure.in_context import alone
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Artifact, Runtime
from hw_profiles.runtimes.transports.tvm_rpc.boards import Boards
from hw_profiles.runtimes.transports.tvm_rpc.tracker import parse_tracker
from hw_profiles.runtimes.tvm_cpu.compile import compile_candidates, link_shared
from hw_profiles.runtimes.tvm_cpu.dot import register_intrinsics
from hw_profiles.runtimes.tvm_cpu.runtime import Program, TvmRuntime, default_database
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, parse_target
from hw_profiles.runtimes.tvm_cpu.tuning import Database

# What reveals interference on a board: as many multiply-adds as the reference workload of this machine.
REFERENCE = map_layer("conv", (64, 8, 8), 64)


class TvmRpc:
    """Boards behind TVM's tracker, any number of them at a time.

    A call takes a board while it lasts and gives it back. If one is lost, what it was asked for is asked of
    another one. The boards of a key are taken as alike. Programs are not pinned to a core of the board: start
    its server with `taskset` if it has several kinds. Nothing is connected to before boards are needed, so
    that a saved profile can be used without them.

    Raises:
        TrilobitError: there is no C compiler for the target. Those that reach for boards raise one if no
            tracker answers, no board has that key, or none is left.
    """

    def __init__(self, boards: Boards, target: TvmTarget) -> None:
        self.boards, self._target = boards, target

    @property
    def times_only(self) -> Literal[True]:
        """Boards run what they are sent, and say how long that takes."""
        return True

    @property
    def parallel(self) -> int:
        """Boards that there are."""
        return self.boards.alive

    def located(self, info: DeviceInfo) -> DeviceInfo:
        """Return it as the boards of this key."""
        return replace(
            info,
            name=f"tvm-rpc-{_safe(self.boards.key)}-1t",
            cpu=self._target.mcpu,
            energy="not measured: boards' counters are not read over RPC",
        )

    def sample(
        self,
        runtime: Runtime,
        artifacts: Sequence[Artifact],
        contexts: Sequence[Hashable | None],
        plan: MeasurePlan,
    ) -> list[Measurement]:
        """Time the programs on one board, in passes beside a reference that runs there too."""
        programs = [artifact for artifact in artifacts if isinstance(artifact, Program)]
        samples = self.boards.run(lambda board: board.sample(programs, contexts, plan))
        return [
            Measurement(error=sample) if isinstance(sample, str) else Measurement.of(sample)
            for sample in samples
        ]


def open_boards(
    tracker: str, key: str, *, target: str = "host", database: Path | None = None
) -> MeasuredDevice:
    """Return own kernels on the boards of a tracker.

    What was tuned on them is kept apart from what was tuned elsewhere, in a folder of the database for each
    key.

    Args:
        tracker: HOST:PORT.
        key: of the boards.
        target: their processor; `host` if they are like this machine.
        database: folder of tuned layers; `default_database()` if not given.

    Raises:
        TrilobitError: LLVM does not know the target, there is no C compiler for it, or the tracker is not
            written HOST:PORT.
    """
    parsed = parse_target(target)
    register_intrinsics(parsed)  # before several threads compile: TVM takes each name once
    boards = Boards(parse_tracker(tracker), key, _reference(parsed))
    tuned = Database((database or default_database()) / f"boards-{_safe(key)}", parsed)
    runtime = TvmRuntime(parsed, tuned, lambda use: boards.run(lambda board: use(board.try_out)))
    return MeasuredDevice(runtime, TvmRpc(boards, parsed), alone)


def _safe(key: str) -> str:
    return re.sub(r"[^\w.-]", "_", key)


def _reference(target: TvmTarget) -> Program:
    """Return what is run between windows, compiled for the boards with the first schedule."""
    (candidate,) = compile_candidates(REFERENCE, target, limit=1)
    if candidate.error:
        raise TrilobitError(f"cannot compile for {target.name!r}: {candidate.error}")
    arrays = tuple(np.ones(argument.shape, argument.dtype) for argument in candidate.arguments)
    with tempfile.TemporaryDirectory() as folder:
        code, library = Path(folder) / "unit.o", Path(folder) / "unit.so"
        code.write_bytes(candidate.code)
        link_shared(target, [str(code)], library)
        return Program(library.read_bytes(), symbol=candidate.symbol, arrays=arrays)
