"""Boards of one kind, any number of them: each call has one for itself, and if that is lost another one."""

import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.transports.agent_client import AgentClient, BoardFacts
from hw_profiles.runtimes.transports.board import Board, BoardLost
from hw_profiles.runtimes.transports.launch import Launch

TRIES = 3  # in a row, after which a board is given up
AGAIN_S = 2.0  # before a board that was lost is tried again, times the tries so far
SLOW_S = 5.0  # after which people are told what they wait for
KEPT = "What was measured is kept: the same command goes on from there"

Result = TypeVar("Result")


@dataclass
class _State:
    """What is known of a board.

    Attributes:
        client: a conversation that goes on; None where there is none.
        failures: in a row.
        not_before: when it may be tried again, on the monotonic clock.
        taken: whether a call has it.
        answered: whether it ever did what it was asked for.
        gone: why it was given up; empty while it was not.
    """

    client: AgentClient | None = None
    failures: int = 0
    not_before: float = 0.0
    taken: bool = False
    answered: bool = False
    gone: str = ""


class Boards:
    """The boards. Threads may use them at the same time. Nothing is connected to before it is needed, and
    connections stay open until the process ends.

    Args:
        boards: taken as alike, which their processors must be.
        launch: starts an agent on one.
        tell: told in one line what people should know.
    """

    def __init__(
        self, boards: Sequence[Board], launch: Launch, tell: Callable[[str], None] | None = None
    ) -> None:
        self.boards, self._launch, self.tell = tuple(boards), launch, tell or _on_standard_error
        self._states = {board.name: _State() for board in boards}
        self._changed = threading.Condition()
        self._facts: list[BoardFacts] = []
        weakref.finalize(self, _close, self._states)

    @property
    def left(self) -> int:
        """How many are not given up; at least 1."""
        return max(1, sum(not state.gone for state in self._states.values()))

    @property
    def facts(self) -> BoardFacts:
        """What they say of themselves; reaches for one where none did yet.

        Raises:
            TrilobitError: none answers.
        """
        return self._facts[0] if self._facts else self.run(lambda client: client.facts)

    def reconsider(self) -> None:
        """Try boards that were given up once more, where none is left."""
        with self._changed:
            if all(state.gone for state in self._states.values()):
                for state in self._states.values():
                    state.gone, state.failures, state.not_before = "", 0, 0.0

    def run(self, use: Callable[[AgentClient], Result]) -> Result:
        """Return what `use` gives with a board; where that is lost, all of it once more with another one or
        with the same again.

        Raises:
            TrilobitError: no board is left; whatever `use` raises besides `BoardLost`.
        """
        while True:
            board = self._take()
            state = self._states[board.name]
            try:
                result = use(self._client(board, state))
            except BoardLost as lost:
                self._note(board, state, lost)
            except BaseException:
                self._give_back(state)
                raise
            else:
                state.failures, state.answered = 0, True
                self._give_back(state)
                return result

    def close(self) -> None:
        """End all conversations; a later call begins new ones."""
        _close(self._states)

    def _take(self) -> Board:
        """Return a board that nobody has, as soon as there is one: of several one that failed least.

        Raises:
            TrilobitError: all were given up.
        """
        with self._changed:
            while True:
                left = [board for board in self.boards if not self._states[board.name].gone]
                if not left:
                    raise TrilobitError(self._none_left())
                now = time.monotonic()
                free = [board for board in left if not self._states[board.name].taken]
                ready = [board for board in free if self._states[board.name].not_before <= now]
                if ready:
                    best = min(ready, key=lambda board: self._states[board.name].failures)
                    self._states[best.name].taken = True
                    return best
                soonest = min((self._states[board.name].not_before for board in free), default=None)
                self._changed.wait(None if soonest is None else max(0.01, soonest - now))

    def _client(self, board: Board, state: _State) -> AgentClient:
        if state.client is not None and not state.client.alive:
            state.client.kill()
            state.client = None
        if state.client is None:
            slow = threading.Timer(SLOW_S, self.tell, [f"{board.name}: waiting for it to answer"])
            slow.daemon = True
            slow.start()
            try:
                state.client = self._launch(board)
            finally:
                slow.cancel()
            self._alike(board, state.client.facts)
        return state.client

    def _alike(self, board: Board, facts: BoardFacts) -> None:
        """Note what a board is.

        Raises:
            BoardLost: others are something else.
        """
        with self._changed:
            first = next(iter(self._facts), facts)
            if (facts.machine, facts.cpu, facts.cores) != (first.machine, first.cpu, first.cores):
                raise BoardLost(
                    f"{board.name} is {facts.cores} x {facts.cpu}, the other is {first.cores} x {first.cpu}: "
                    "boards that measure one profile must be alike",
                    again=False,
                )
            self._facts.append(facts)

    def _note(self, board: Board, state: _State, lost: BoardLost) -> None:
        """Note that a board was lost, and whether it is given up."""
        if state.client is not None:
            state.client.kill()
            state.client = None
        state.failures += 1
        state.not_before = time.monotonic() + AGAIN_S * state.failures
        if not lost.again or not state.answered or state.failures >= TRIES:
            state.gone = str(lost)
        others = sum(not other.gone for other in self._states.values())
        if state.gone and others:
            self.tell(f"{state.gone}; {others} of {len(self.boards)} boards go on")
        self._give_back(state)

    def _none_left(self) -> str:
        reasons = [state.gone for state in self._states.values()]
        used = any(state.answered for state in self._states.values())
        if len(reasons) == 1:
            return f"{reasons[0]}. {KEPT}" if used else reasons[0]
        return f"no board is left: {'; '.join(reasons)}" + (f". {KEPT}" if used else "")

    def _give_back(self, state: _State) -> None:
        with self._changed:
            state.taken = False
            self._changed.notify_all()


def _close(states: dict[str, _State]) -> None:
    for state in states.values():
        if state.client is not None:
            state.client.close()
            state.client = None


def _on_standard_error(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
