"""Own kernels on boards that are reached over ssh or adb: compiled and linked here, tried out and run there
by the agent in C. The boards need neither TVM nor Python.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tvm

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.in_context import alone
from hw_profiles.runtimes.device import Device, MeasuredDevice
from hw_profiles.runtimes.runtime import Array, Artifact, KernelTime, TensorInfo
from hw_profiles.runtimes.transports.agent_client import AgentClient, Refused, sha256_of
from hw_profiles.runtimes.transports.asking import telling, unable, whoever
from hw_profiles.runtimes.transports.board import Board
from hw_profiles.runtimes.transports.board_kind import MB, boards_of
from hw_profiles.runtimes.transports.board_runtime import BoardRuntime, EngineHere, RunsThere
from hw_profiles.runtimes.transports.board_transport import BoardTransport
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.native_agent import NativeAgent
from hw_profiles.runtimes.tvm_cpu.agent_program import agent_program
from hw_profiles.runtimes.tvm_cpu.dot import register_intrinsics, sums_of
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan
from hw_profiles.runtimes.tvm_cpu.runtime import TvmRuntime, default_database, random_parameters
from hw_profiles.runtimes.tvm_cpu.self_contained import SelfContained, Signature, described
from hw_profiles.runtimes.tvm_cpu.standalone import link_standalone
from hw_profiles.runtimes.tvm_cpu.target import TvmTarget, board_target, parse_target
from hw_profiles.runtimes.tvm_cpu.tuning import GROUPS, WINDOW_S, WINDOWS, Database

HOST = "host"  # the target where none was named


class BoardTvmRuntime(TvmRuntime):
    """Own kernels whose networks are libraries that bring everything along."""

    def link(self, plan: NetworkPlan) -> Artifact:
        """Return a network as a self-contained library that says what it reads and gives."""
        path = self._folder() / f"{next(self._numbers)}.so"
        parameters = random_parameters(plan, self.target)
        ends = (("image", plan.image), ("output", plan.output))
        signature = Signature(*(TensorInfo(name, each.shape, each.dtype) for name, each in ends))
        layers = [layer.key() for layer in plan.workload.layers]
        link_standalone(plan, parameters, self.target, path, signature=described(signature, layers))
        content = path.read_bytes()
        path.unlink()
        return Artifact(content, "library")


@dataclass(frozen=True)
class TvmHere(EngineHere):
    """The part of this machine.

    Attributes:
        boards: where kernels run.
        target: of them; `host` for what they say that they are.
        database: folder of tuned layers.
    """

    boards: Boards
    target: str
    database: Path
    package = "apache-tvm"
    oldest = (0,)

    @cached_property
    def local(self) -> TvmRuntime:
        """What compiles and links; asks the boards what they are, where nobody said.

        Raises:
            TrilobitError: no board answers, or there is no compiler for it.
        """
        target = self._target
        register_intrinsics(target)  # before several threads compile: TVM takes each name once
        tuned = Database(self.database, target)
        return BoardTvmRuntime(
            target, tuned, lambda use: self.boards.run(lambda client: use(self._runner(client)))
        )

    @property
    def engine(self) -> Mapping[str, Any]:
        """Libraries, made by this TVM."""
        return {"name": "library", "options": {"version": tvm.__version__}}

    def on(self, boards: Boards) -> "LibrariesThere":
        """Return libraries on boards."""
        return LibrariesThere(self, boards)

    def integer_sums(self, run: RunsThere) -> Literal["exact", "saturating", "unknown"]:
        """Return what kernels for this target do."""
        return sums_of(self.local.target).value

    def kernels(self, graph: bytes, content: bytes) -> Counter[str]:
        """Return the keys of a library's layers.

        Raises:
            TrilobitError: it does not say them.
        """
        try:
            return Counter(map(str, json.loads(graph)["layers"]))
        except (ValueError, KeyError, TypeError):
            raise TrilobitError("the library does not say which layers it has") from None

    @property
    def _target(self) -> TvmTarget:
        if self.target != HOST:
            return parse_target(self.target)
        facts = self.boards.facts
        return board_target(facts.machine, facts.flags)

    def _runner(self, client: AgentClient) -> "partial[tuple[Array, float]]":
        return partial(try_out_there, self.boards, client)


@dataclass(frozen=True, eq=False)
class LibrariesThere(BoardRuntime):
    """Libraries on boards."""

    here: TvmHere

    def kernel_times(self, artifact: Artifact, runs: int) -> tuple[KernelTime, ...]:
        """Return what the kernels of a library that was built here took when they were tried out there: see
        `TvmRuntime.kernel_times`.
        """
        return self.here.local.kernel_times(artifact, runs)

    def remember(self, artifact: SelfContained) -> None:
        """Note what the kernels of a library that was built here took."""
        self.here.local.remember(artifact)


def try_out_there(
    boards: Boards, client: AgentClient, library: Path, symbol: str, arrays: Sequence[Array]
) -> tuple[Array, float]:
    """Run a function of a library on a board: (its last argument afterwards, seconds).

    Raises:
        RuntimeError: it does not run there.
        BoardLost: the board cannot.
    """
    content = library.read_bytes()
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    names, last = (sha256_of(content), sha256_of(data)), arrays[-1]
    try:
        client.put(dict(zip(names, (content, data), strict=True)))
        answer = client.request(
            "trial",
            library=names[0],
            data=names[1],
            symbol=symbol,
            arrays=[{"name": "", "dtype": str(array.dtype), "shape": list(array.shape)} for array in arrays],
            window_s=WINDOW_S,
            windows=WINDOWS,
            groups=GROUPS,
            who=whoever(),
            on_line=telling(boards, client),
        )
    except Refused as refused:
        if refused.kind in ("artifact", "lost"):
            raise RuntimeError(str(refused)) from None
        raise unable(client, refused) from None
    output = base64.b64decode(client.read(str, answer.get("output")))
    seconds: float = client.read(float, answer.get("seconds"))
    if len(output) != last.nbytes:
        raise RuntimeError(f"gave {len(output)} bytes, wanted {last.nbytes}")
    return np.frombuffer(output, last.dtype).reshape(last.shape), seconds


def open_on_boards(options: Any, boards: tuple[Board, ...]) -> Device:
    """Return own kernels on boards.

    Args:
        options: those of TVM and of boards.

    Raises:
        TrilobitError: a tracker was named too.
    """
    if options.tracker:
        raise TrilobitError("a board is reached by its address or by a tracker, not by both")
    launch = NativeAgent(agent_program, options.folder, options.cache_mb * MB, options.hang_s)
    reached = boards_of(boards, launch)
    reached.reconsider()
    database = Path(options.database) if options.database else default_database()
    # what was tuned on boards is kept apart from what was tuned here, or on others of the same target
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", boards[0].name)
    engine = TvmHere(reached, options.target, database / f"boards-{name}")
    return MeasuredDevice(engine.on(reached), BoardTransport(reached), alone)
