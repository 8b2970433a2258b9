"""A runtime whose executables are on boards: networks are written here, and opened, run and named there."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.measure.host import best_instruction_set
from hw_profiles.measure.interleave import Timed
from hw_profiles.measure.measurement import Clock
from hw_profiles.runtimes.info import BoardInfo, DeviceInfo
from hw_profiles.runtimes.runtime import (
    Array,
    Arrays,
    Artifact,
    ArtifactKind,
    Dialect,
    Job,
    KernelTime,
    RejectedError,
    Runtime,
    TensorInfo,
)
from hw_profiles.runtimes.transports.addressed import Addressed, arrays_in, named_arrays
from hw_profiles.runtimes.transports.agent_client import AgentClient, Line, Refused
from hw_profiles.runtimes.transports.asking import EngineThere, require, telling, unable, whoever
from hw_profiles.runtimes.transports.board import BoardLost
from hw_profiles.runtimes.transports.boards import Boards

Sums = Literal["exact", "saturating", "unknown"]
T = TypeVar("T")
RunsThere = Callable[[bytes, Arrays], Mapping[str, Array]]  # a file on its inputs


class EngineHere:
    """What of a runtime stays on this machine when its executables are on boards; a subclass is a frozen
    dataclass, and says what is not as it is here.

    Attributes:
        package: what brings the engine, for pip.
        oldest: version that opens all files which are written here.
        tells_graph: whether an agent says which graph really runs.
    """

    package: str = ""
    oldest: tuple[int, ...] = ()
    tells_graph: bool = True

    @property
    def local(self) -> Runtime:
        """What knows its formats and writes its files; nothing is compiled with it."""
        raise NotImplementedError

    @property
    def engine(self) -> Mapping[str, Any]:
        """What an agent opens its files with: `name` and `options`."""
        raise NotImplementedError

    def integer_sums(self, run: RunsThere) -> Sums:
        """Return what its kernels there do with sums that leave 16 bits."""
        raise NotImplementedError

    def kernels(self, graph: bytes, content: bytes) -> Mapping[str, int]:
        """Return how many kernels of each kind run, from the graph that an agent says really runs."""
        raise NotImplementedError

    def named_kernels(self, graph: bytes, content: bytes) -> Mapping[str, str]:
        """Return the kind of kernel by the name of the node that it runs, from the same."""
        return {}

    def content(self, artifact: Artifact) -> bytes:
        """Return the file that is opened there.

        Raises:
            TrilobitError: there is none for it.
        """
        return artifact.content

    def example(self, content: bytes, example: Arrays | None) -> Arrays | None:
        """Return what a file reads while it is timed, as that file has it."""
        return example

    def names(self, content: bytes) -> tuple[str, ...]:
        """Return what inputs and outputs are called in a file, where an engine has other names for them."""
        return ()

    def wants_exact_sums(self, artifact: Artifact) -> bool:
        """Return whether a file must be opened so that sums do not saturate, where they would."""
        return False

    def profiled_runs(self, runs: int) -> int:
        """Return how many runs an agent must record so that `runs` count; 0 where a record says nothing."""
        return 0

    def kernel_times(self, graph: bytes, trace: bytes, content: bytes, runs: int) -> tuple[KernelTime, ...]:
        """Return what each kernel takes, from the graph and the engine's own record of its runs."""
        return ()

    def on(self, boards: Boards) -> "BoardRuntime":
        """Return the runtime on boards."""
        return BoardRuntime(self, boards)

    def opened(self, executable: "BoardExecutable") -> "BoardExecutable":
        """Return a file that was opened there, as people use it."""
        return executable


@dataclass(frozen=True)
class _Described:
    """What a file reads and gives there."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, eq=False)
class BoardExecutable:
    """A file that is opened on a board.

    Attributes:
        runtime: that it belongs to.
        addressed: how it is asked for.
        inputs, outputs: what it reads and gives.
    """

    runtime: "BoardRuntime"
    addressed: Addressed
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Return the outputs of one batch by name."""
        sha256, packed = named_arrays(inputs)

        def asked(client: AgentClient) -> dict[str, Array]:
            files, fields = {sha256: packed}, {"inputs": sha256, "who": whoever()}
            answer = self.runtime.ask(client, self.addressed, "run", files, **fields)
            names = client.read(tuple[str, ...], answer.get("names"))
            return _decoded(client, answer.get("npz"), lambda content: arrays_in(content, names))

        return self.runtime.boards.run(asked)

    def timed(self, clock: Clock, *, batch: int | None = None, example: Arrays | None = None) -> Timed:
        """Return runs there, of which each call is one request."""
        files = dict([named_arrays(example)]) if example is not None else {}
        fields = {"clock": clock, "batch": batch, "example": next(iter(files), None), "who": whoever()}

        def runs(count: int) -> float:
            def asked(client: AgentClient) -> float:
                answer = self.runtime.ask(client, self.addressed, "time", files, count=count, **fields)
                return client.read(float, answer.get("seconds"))

            return self.runtime.boards.run(asked)

        return runs

    def kernels(self) -> Mapping[str, int]:
        """Return how many kernels of each kind run there."""
        return self.runtime.here.kernels(self.graph, self.addressed.content)

    def named_kernels(self) -> Mapping[str, str]:
        """Return the kind of kernel by the name of the node that it runs."""
        return self.runtime.here.named_kernels(self.graph, self.addressed.content)

    @cached_property
    def graph(self) -> bytes:
        """What an agent says really runs; empty where it does not say."""
        if not self.runtime.here.tells_graph:
            return b""

        def asked(client: AgentClient) -> bytes:
            answer = self.runtime.ask(client, self.addressed, "kernels")
            return _decoded(client, answer.get("graph"), bytes)

        return self.runtime.boards.run(asked)


@dataclass(frozen=True, eq=False)
class BoardRuntime:
    """A runtime on boards.

    Attributes:
        here: what of it stays here.
        boards: where its executables are.
    """

    here: EngineHere
    boards: Boards

    @property
    def artifact(self) -> ArtifactKind:
        """What it opens."""
        return self.here.local.artifact

    @property
    def clock(self) -> Clock:
        """By which its executables are timed."""
        return self.here.local.clock

    @property
    def dialect(self) -> Dialect:
        """How it wants quantized networks."""
        return self.here.local.dialect

    @property
    def formats(self) -> frozenset[tuple[str, str]]:
        """Pairs of number formats that it has kernels for."""
        return self.here.local.formats

    @property
    def integer_kernels(self) -> frozenset[str]:
        """Which of its kernels compute on integers."""
        return self.here.local.integer_kernels

    def supports(self, layer: Layer) -> bool:
        """Return whether it can run a layer."""
        return self.here.local.supports(layer)

    def why_not(self, layer: Layer) -> str:
        """Return why it cannot."""
        return self.here.local.why_not(layer)

    def build(self, jobs: Sequence[Job]) -> list[Artifact | str]:
        """Write the file of each job, here."""
        return self.here.local.build(jobs)

    def expected_kernels(self, workload: Workload) -> Mapping[str, int]:
        """Return how many kernels of each kind a network must run on."""
        return self.here.local.expected_kernels(workload)

    def describe(self) -> DeviceInfo:
        """Return the engine, and the board that it runs on.

        Raises:
            TrilobitError: no board answers, or it has no such engine.
        """
        engine, facts = self.there, self.boards.facts
        own = self.here.local.describe()
        names = [board.name for board in self.boards.boards]
        more = f"-and-{len(names) - 1}-more" if len(names) > 1 else ""
        packages = ", ".join(f"{name} {version}" for name, version in sorted(engine.packages.items()))
        board = BoardInfo(
            address=", ".join(names),
            system=facts.system,
            machine=facts.machine,
            cores=facts.cores,
            pinned=self.clock == "thread",
            governor=facts.governor,
            max_frequency_hz=facts.max_frequency_hz,
            versions=f"python {facts.python}, {packages}" if facts.python else packages,
            instruction_set=best_instruction_set(facts.flags),
        )
        return replace(
            own,
            name=f"{re.sub(r'[^A-Za-z0-9.-]+', '-', names[0])}{more}-{own.name}",
            cpu=facts.cpu,
            engine_version=engine.version,
            energy=engine.energy,
            integer_sums=self._sums,
            board=board,
        )

    def compile(self, artifact: Artifact) -> BoardExecutable:
        """Open a file on a board.

        Raises:
            TrilobitError: the engine there rejects it, in its own words; or no board answers.
        """
        addressed = self.addressed(artifact)

        def asked(client: AgentClient) -> _Described:
            answer = self.ask(client, addressed, "describe")
            return client.read(_Described, answer)

        described = self.boards.run(asked)
        executable = BoardExecutable(self, addressed, described.inputs, described.outputs)
        return self.here.opened(executable)

    def kernel_times(self, artifact: Artifact, runs: int) -> tuple[KernelTime, ...]:
        """Return what each kernel of a network takes inside it; none where the engine does not tell.

        Raises:
            TrilobitError: see `compile`.
        """
        addressed, recorded = self.addressed(artifact), self.here.profiled_runs(runs)
        if not recorded:
            return ()

        def asked(client: AgentClient) -> tuple[bytes, bytes]:
            answer = self.ask(client, addressed, "profile", runs=recorded, who=whoever())
            return _decoded(client, answer.get("graph"), bytes), _decoded(client, answer.get("trace"), bytes)

        graph, trace = self.boards.run(asked)
        return self.here.kernel_times(graph, trace, addressed.content, runs)

    def addressed(self, artifact: Artifact) -> Addressed:
        """Return an artifact as an agent is asked for it.

        Raises:
            TrilobitError: there is no file for it.
        """
        exact, content = self.here.wants_exact_sums(artifact), self.here.content(artifact)
        names, example = self.here.names(content), self.here.example(content, artifact.example)
        exact = exact and self._sums == "saturating"
        return Addressed(content, self.here.engine, exact, example, names)

    def ask(
        self,
        client: AgentClient,
        addressed: Addressed,
        do: str,
        files: Mapping[str, bytes] | None = None,
        **fields: Any,
    ) -> Line:
        """Return an agent's answer to something about one file, which is taken there if it must be.

        Raises:
            RejectedError: its engine rejects the file.
            BoardLost: it cannot answer; another board may.
        """
        request, needed = addressed.request()
        require(client, self.here)
        for last in (False, True):
            try:
                client.put({**needed, **(files or {})})
                return client.request(do, artifact=request, on_line=telling(self.boards, client), **fields)
            except Refused as refused:
                if refused.kind in ("artifact", "lost"):
                    raise RejectedError(str(refused)) from None
                if refused.kind != "missing" or last:
                    raise unable(client, refused) from None
                client.forget()  # another run made room for its own files
        raise AssertionError

    @cached_property
    def there(self) -> EngineThere:
        """The engine on the boards.

        Raises:
            TrilobitError: no board answers, or none has it.
        """
        return self.boards.run(lambda client: require(client, self.here))

    @cached_property
    def _sums(self) -> Sums:
        def run(content: bytes, inputs: Arrays) -> Mapping[str, Array]:
            addressed = Addressed(content, self.here.engine, names=self.here.names(content))
            return BoardExecutable(self, addressed, (), ()).run(inputs)

        try:
            return self.here.integer_sums(run)
        except TrilobitError:
            self.boards.run(lambda client: None)  # unless there is no board
            return "unknown"


def _decoded(client: AgentClient, text: Any, read: Callable[[bytes], T]) -> T:
    """Return what an agent sent in base64.

    Raises:
        BoardLost: it is something else.
    """
    try:
        return read(base64.b64decode(client.read(str, text), validate=True))
    except ValueError as error:
        raise BoardLost(f"{client.board.name}: its agent answers nonsense ({error})", again=False) from None
