"""Boards behind TVM's tracker: borrowed one call at a time, and replaced when they are lost."""

import contextlib
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tvm.support.popen_pool import PopenWorker

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import MeasurePlan, Samples
from hw_profiles.runtimes.transports.tvm_rpc import session
from hw_profiles.runtimes.transports.tvm_rpc.session import BoardLost
from hw_profiles.runtimes.transports.tvm_rpc.tracker import Offer, Tracker
from hw_profiles.runtimes.tvm_cpu.runtime import Program
from hw_profiles.runtimes.tvm_cpu.unit import Array

TRIES = 3  # boards that one call may lose
WAIT_S = 300.0  # for a board that is free
ANSWER_S = 60.0  # what a board may take to connect, to try a kernel, or to load what is measured
WINDOW_S = 0.5  # the same for one timed window

Result = TypeVar("Result")


@dataclass(frozen=True)
class Board:
    """A borrowed board. Each call raises `BoardLost` when it does not answer in time."""

    worker: PopenWorker
    offer: Offer

    def try_out(self, library: Path, symbol: str, arrays: Sequence[Array]) -> tuple[Array, float]:
        """Run `hw_profiles.runtimes.tvm_cpu.tuning.run_locally`, on the board.

        Raises:
            RuntimeError: the function does not run there.
        """
        outcome = self.call(session.trial, Program(library.read_bytes(), symbol=symbol, arrays=tuple(arrays)))
        if isinstance(outcome, str):
            raise RuntimeError(outcome)
        output, seconds = outcome
        return output, seconds

    def sample(
        self, programs: Sequence[Program], contexts: Sequence[Hashable | None], plan: MeasurePlan
    ) -> list[Samples | str]:
        """Time the programs in passes; of one that does not run, return why. Contexts are as of `Job`."""
        name, extra_s = self.offer.name, plan.waiting_s + WINDOW_S * plan.rounds * len(programs)
        samples: list[Samples | str] = self.call(
            session.sample, programs, contexts, plan, name, extra_s=extra_s
        )
        return samples

    def call(self, function: Callable[..., Any], *arguments: object, extra_s: float = 0.0) -> Any:
        """Call a function of `session` in the process that talks to the board; it may take `extra_s` longer
        than others.
        """
        limit_s = ANSWER_S + extra_s
        self.worker.send(function, arguments, timeout=limit_s)
        try:
            return self.worker.recv()
        except TimeoutError:
            reason = f"no answer in {limit_s:.0f} s"
        except ChildProcessError:
            reason = "the process that talked to it died"
        except BoardLost as error:  # with a traceback as its text
            reason = str(error).strip().splitlines()[-1].partition("BoardLost: ")[2]
        raise BoardLost(f"board {self.offer.name} was lost: {reason}")


@dataclass(frozen=True)
class Boards:
    """All boards of one key. Threads may use it at the same time: each call has a board of its own.

    Attributes:
        reference: what tells whether a board is disturbed.
        idle: processes without a board. A process is kept for what it knows of boards' usual speed.
    """

    tracker: Tracker
    key: str
    reference: Program
    idle: list[PopenWorker] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, _end, self.idle)  # while Python still has what that needs

    @property
    def alive(self) -> int:
        """How many there are.

        Raises:
            TrilobitError: none, or no tracker answers.
        """
        return self.tracker.count(self.key)

    def run(self, use: Callable[[Board], Result]) -> Result:
        """Run `use` with a board; where that is lost, all of it once more with another one.

        Raises:
            TrilobitError: no board is left, or too many were lost.
        """
        self.tracker.count(self.key)  # before a process is started for nothing
        for _ in range(TRIES):
            try:
                with self._borrowed() as board:
                    return use(board)
            except BoardLost as error:
                lost = error
        raise TrilobitError(
            f"{lost}, the last of {TRIES} in a row. Does the target fit the boards? Code that they do not "
            "know stops their servers. What was measured is kept: restart them and give the command again"
        )

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Board]:
        worker = self.idle.pop() if self.idle else _new_worker()
        try:
            board = Board(worker, self.tracker.request(self.key, WAIT_S))
            board.call(session.begin, board.offer, self.reference)
            yield board
            board.call(session.end)
        except BaseException:
            worker.kill()  # and with it the session
            raise
        self.idle.append(worker)


def _end(workers: Sequence[PopenWorker]) -> None:
    for worker in workers:
        worker.kill()


def _new_worker() -> PopenWorker:
    """Return a process that is ready: a board that was offered must be taken within some seconds."""
    worker = PopenWorker(initializer=session.ignore_interrupts)
    worker.send(session.end)
    worker.recv()
    return worker
