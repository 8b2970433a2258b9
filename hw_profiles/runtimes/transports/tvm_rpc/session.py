"""What runs in a process of its own that talks to one board at a time.

TVM's client waits for an answer as long as the board takes, forever if the board was unplugged: only another
process can end that. It lives on from board to board, so that what it learnt of each is not lost.
"""

import hashlib
import signal
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import rpc

from hw_profiles.measure.interleave import ReferenceWorkload, Timed, interleaved
from hw_profiles.measure.measurement import MeasurePlan, Samples
from hw_profiles.runtimes.runtime import LostError
from hw_profiles.runtimes.transports.tvm_rpc.tracker import Offer
from hw_profiles.runtimes.tvm_cpu.compile import one_line
from hw_profiles.runtimes.tvm_cpu.runtime import Program, timed
from hw_profiles.runtimes.tvm_cpu.tuning import try_out
from hw_profiles.runtimes.tvm_cpu.unit import Array

SESSION_S = 1800  # then the server ends a session by itself: its client was switched off


class BoardLost(LostError):  # noqa: N818 - what happened, not what is wrong
    """The board does not answer any more. What was asked of it can be asked of another one."""


class Session:
    """A connection to a board.

    Args:
        offer: the board.
        reference: what tells whether the board is disturbed.
    """

    def __init__(self, offer: Offer, reference: Program) -> None:
        self._remote = rpc.connect(offer.host, offer.port, offer.matchkey, session_timeout=SESSION_S)
        self._libraries: dict[str, Any] = {}
        self.reference = timed(*self.load(reference))

    def load(self, program: Program) -> tuple[Any, str, list[Any]]:
        """Return (library, function, tensors) on the board."""
        # named by its contents: a file must not change while the board has it loaded
        name = f"{hashlib.sha256(program.content).hexdigest()[:16]}.so"
        if name not in self._libraries:
            self._remote.upload(bytearray(program.content), name)
            self._libraries[name] = self._remote.load_module(name)
        tensors = [tvm.runtime.tensor(array, self._remote.cpu()) for array in program.arrays]
        return self._libraries[name], program.symbol, tensors

    def ready(self, program: Program, sessions: int) -> list[Timed] | str:
        """Return the program as something to be timed, with tensors of their own for each session, or why it
        does not run.

        Raises:
            BoardLost: the board no longer answers.
        """
        try:
            loaded = [self.load(program) for _ in range(sessions)]
            module, symbol, tensors = loaded[0]
            module[symbol](*tensors)
            return [timed(*session) for session in loaded]
        except Exception as error:
            self.check(error)
            return one_line(error)

    def check(self, error: Exception) -> None:
        """Raise `BoardLost` from an error if the board was the reason: if it does not answer now."""
        try:
            self._remote.get_function("tvm.rpc.server.workpath")(".")
        except Exception:
            raise BoardLost(one_line(error)) from None


@dataclass
class Process:
    """What this process keeps between the calls below, each of which comes from another process.

    Attributes:
        session: with the board in use.
        references: by board; the reference of each runs in the current session.
    """

    session: Session | None = None
    references: dict[str, ReferenceWorkload] = field(default_factory=dict)

    @property
    def current(self) -> Session:
        """The session."""
        assert self.session is not None
        return self.session


_process = Process()


def ignore_interrupts() -> None:
    """Set this process to ignore Ctrl-C: that is for the one that it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def begin(offer: Offer, reference: Program) -> None:
    """Open a connection to a board.

    Raises:
        BoardLost: it does not answer.
    """
    try:
        _process.session = Session(offer, reference)
    except Exception as error:
        raise BoardLost(one_line(error)) from None


def end() -> None:
    """Give the board back."""
    _process.session = None


def trial(program: Program) -> tuple[Array, float] | str:
    """Run `hw_profiles.runtimes.tvm_cpu.tuning.try_out` on the board; where that fails, return why.

    Raises:
        BoardLost: the board no longer answers.
    """
    session = _process.current
    try:
        return try_out(*session.load(program))
    except Exception as error:
        session.check(error)
        return one_line(error)


def sample(
    programs: Sequence[Program], contexts: Sequence[Hashable | None], plan: MeasurePlan, board: str
) -> list[Samples | str]:
    """Time the programs in passes on the board; of one that does not run, return why.

    A window is four calls of the board: warm-up, the window itself, and the two of the reference.

    Args:
        contexts: of each, see `hw_profiles.runtimes.runtime.Job`.
        board: its name, under which its reference is remembered.

    Raises:
        BoardLost: the board no longer answers.
    """
    session = _process.current
    runs = [session.ready(program, plan.sessions) for program in programs]
    try:
        good = [run for run in runs if not isinstance(run, str)]
        of = [context for context, run in zip(contexts, runs, strict=True) if not isinstance(run, str)]
        samples = iter(interleaved(good, plan, _reference_of(board), of))
    except Exception as error:
        raise BoardLost(one_line(error)) from None
    return [run if isinstance(run, str) else next(samples) for run in runs]


def _reference_of(board: str) -> ReferenceWorkload:
    if board not in _process.references:
        _process.references[board] = ReferenceWorkload(lambda count: _process.current.reference(count))
    return _process.references[board]
