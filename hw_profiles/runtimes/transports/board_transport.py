"""Boards as a transport: artifacts are taken there, and timed there in passes beside a reference that runs
there too.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.interleave import watch_of_caller
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import Artifact, Runtime
from hw_profiles.runtimes.transports.addressed import Addressed
from hw_profiles.runtimes.transports.agent_client import AgentClient, Line, Refused
from hw_profiles.runtimes.transports.asking import require, telling, unable, whoever
from hw_profiles.runtimes.transports.board import BoardLost
from hw_profiles.runtimes.transports.board_runtime import BoardExecutable, BoardRuntime
from hw_profiles.runtimes.transports.boards import Boards

CRASHES = 16  # files of one call that may end the process which opens them


@dataclass(frozen=True)
class _Sampled:
    """What an agent says of one file.

    Attributes:
        seconds: per run, of each window that counts; none where there is an error.
        quiet_share, waited_s, load: see `hw_profiles.measure.measurement.Samples`.
        energy_j: joules per run; None where the board does not tell.
        error: why it could not be timed.
    """

    seconds: tuple[float, ...] = ()
    quiet_share: float = 1.0
    waited_s: float = 0.0
    load: float | None = None
    energy_j: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if bool(self.seconds) == (self.error is not None):
            raise ValueError("neither times nor a reason, or both")
        if not (0 <= self.quiet_share <= 1 and self.waited_s >= 0 and all(s >= 0 for s in self.seconds)):
            raise ValueError("times below 0, or a share beyond 1")


@dataclass(frozen=True)
class _Conditions:
    """How a board was while it measured.

    Attributes:
        frequency_hz: lowest and highest of its core; None where nothing says so.
        temperature_c: first and highest; None where it has no sensor.
        throttled_s: seconds that were waited for it to cool.
    """

    frequency_hz: tuple[float, float] | None = None
    temperature_c: tuple[float, float] | None = None
    throttled_s: float = 0.0


@dataclass(frozen=True, eq=False)
class BoardTransport:
    """Boards, any number of them at a time. A call takes a board while it lasts; if it is lost, what it was
    asked for is asked of another one.

    Attributes:
        boards: the boards.
    """

    boards: Boards

    @property
    def parallel(self) -> int:
        """Boards that are left."""
        return self.boards.left

    def located(self, info: DeviceInfo) -> DeviceInfo:
        """Return it: the runtime has asked the board already."""
        return info

    def sample(
        self,
        runtime: Runtime,
        artifacts: Sequence[Artifact],
        contexts: Sequence[Hashable | None],
        plan: MeasurePlan,
    ) -> list[Measurement]:
        """Time the artifacts on one board."""
        rejected, ready = dict[int, str](), dict[int, tuple[BoardRuntime, Addressed]]()
        for i, artifact in enumerate(artifacts):
            try:
                ready[i] = _addressed(runtime, artifact)
            except TrilobitError as error:  # by an engine there, where each artifact has its own
                rejected[i] = str(error)
        numbers = {context: i for i, context in enumerate(dict.fromkeys(contexts)) if context is not None}
        groups = [None if context is None else numbers[context] for context in contexts]

        def asked(client: AgentClient) -> list[Measurement]:
            return _Sampling(self.boards, client, plan, groups, ready, dict(rejected)).measurements()

        return self.boards.run(asked)


def _addressed(runtime: Runtime, artifact: Artifact) -> tuple[BoardRuntime, Addressed]:
    """Return an artifact as an agent is asked for it, and what opens it.

    Raises:
        TrilobitError: each artifact has a runtime of its own, and that of this one is not on boards.
    """
    if isinstance(runtime, BoardRuntime):
        return runtime, runtime.addressed(artifact)
    executable = runtime.compile(artifact)
    if not isinstance(executable, BoardExecutable):
        raise TrilobitError("it runs here, and what it is timed beside runs on a board")
    addressed, engine = executable.addressed, executable.runtime.here
    example = engine.example(addressed.content, artifact.example)
    return executable.runtime, replace(addressed, example=example)


@dataclass(frozen=True, eq=False)
class _Sampling:
    """One call, on one board.

    Attributes:
        groups: the context of each artifact.
        ready: those that may be timed.
        rejected: why others are not; grows.
    """

    boards: Boards
    client: AgentClient
    plan: MeasurePlan
    groups: Sequence[int | None]
    ready: dict[int, tuple[BoardRuntime, Addressed]]
    rejected: dict[int, str]

    def measurements(self) -> list[Measurement]:
        """Return the measurement of every artifact.

        Raises:
            BoardLost: the board cannot.
        """
        for runtime in {id(runtime): runtime for runtime, _ in self.ready.values()}.values():
            require(self.client, runtime.here)
        measured = self._timed()
        return [
            Measurement(error=self.rejected[i]) if i in self.rejected else measured[i]
            for i in range(len(self.groups))
        ]

    def _timed(self) -> dict[int, Measurement]:
        """Return what was measured; what ends the process that opens it is rejected, the rest timed."""
        crashes, again = CRASHES, True
        while order := [i for i in self.ready if i not in self.rejected]:
            try:
                return self._asked(order)
            except Refused as refused:
                index = refused.last.get("index")
                if refused.kind == "lost" and type(index) is int and 0 <= index < len(order) and crashes:
                    self.rejected[order[index]] = str(refused)
                    crashes -= 1
                elif refused.kind == "missing" and again:  # another run made room for its own files
                    self.client.forget()
                    again = False
                else:
                    raise unable(self.client, refused) from None
        return {}

    def _asked(self, order: Sequence[int]) -> dict[int, Measurement]:
        requests, files = list[dict[str, object]](), dict[str, bytes]()
        for i in order:
            request, needed = self.ready[i][1].request()
            requests.append(request)
            files |= needed
        self.client.put(files)
        answer = self.client.request(
            "sample",
            artifacts=requests,
            contexts=[self.groups[i] for i in order],
            plan=asdict(self.plan),
            who=whoever(),
            on_line=self._heard,
        )
        sampled = self.client.read(tuple[_Sampled, ...], answer.get("samples"))
        conditions = self.client.read(_Conditions, answer.get("conditions"))
        self._paired(order, sampled)
        return {i: _measurement(each, conditions) for i, each in zip(order, sampled, strict=True)}

    def _heard(self, line: Line) -> None:
        self._tell(line)
        watch, share = watch_of_caller(), line.get("share")
        if watch is not None and isinstance(share, int | float):
            watch(float(share), bool(line.get("waiting")))

    @cached_property
    def _tell(self) -> Callable[[Line], None]:
        return telling(self.boards, self.client)

    def _paired(self, order: Sequence[int], sampled: Sequence[_Sampled]) -> None:
        """Raise `BoardLost` where samples of one context cannot be of the same passes."""
        windows: dict[int, set[int]] = {}
        for i, each in zip(order, sampled, strict=False):
            if self.groups[i] is not None and each.error is None:
                windows.setdefault(self.groups[i] or 0, set()).add(len(each.seconds))
        if len(sampled) != len(order) or any(len(counts) > 1 for counts in windows.values()):
            name = self.client.board.name
            raise BoardLost(f"{name}: its agent answers nonsense (other samples than asked for)", again=False)


def _measurement(sampled: _Sampled, conditions: _Conditions) -> Measurement:
    if sampled.error is not None:
        return Measurement(error=sampled.error)
    return Measurement(
        sampled.seconds,
        quiet_share=sampled.quiet_share,
        energy_j=sampled.energy_j,
        load=sampled.load,
        waited_s=sampled.waited_s,
        temperature_c=conditions.temperature_c[1] if conditions.temperature_c else None,
        frequency_hz=conditions.frequency_hz[0] if conditions.frequency_hz else None,
    )
