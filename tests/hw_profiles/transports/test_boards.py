"""Several boards: what one loses another measures."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.measure.interleave import watching
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profiler import profile_layers
from hw_profiles.runtimes.runtime import Artifact
from hw_profiles.runtimes.transports import boards as pool
from hw_profiles.runtimes.transports.agent_client import AgentClient
from hw_profiles.runtimes.transports.board import Board, BoardLost
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.launch import Launch
from tests.hw_profiles.transports.pipes import Pipe, agent, device, engine

PLAN = MeasurePlan(rounds=3, waiting_s=0.0, window_s=1e-4)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "AGAIN_S", 0.01)


@contextlib.contextmanager
def farm(tmp_path: Path, *labels: str, hang_s: float = 60.0) -> Iterator[tuple[Boards, list[str]]]:
    told: list[str] = []
    modules = engine(tmp_path / "engine")
    made = Boards(
        [Pipe(label, modules=modules) for label in labels], agent(tmp_path, hang_s=hang_s), told.append
    )
    yield made, told
    made.close()


def sample(boards: Boards, words: str = "good"):
    board = device(boards)
    return board.transport.sample(board.runtime, [Artifact(words.encode())], [None], PLAN)


def process_of(boards: Boards, label: str) -> int:
    client = boards._states[f"pipe:{label}"].client
    assert client is not None
    return client._process.pid


def test_a_board_that_is_lost_half_way_is_tried_again(tmp_path: Path) -> None:
    with farm(tmp_path, "a") as (boards, told):
        sample(boards)
        lost: list[int] = []

        def lose(share: float, waiting: bool) -> None:
            if not lost:
                lost.append(process_of(boards, "a"))
                os.kill(lost[0], signal.SIGKILL)

        with watching(lose):
            [measured] = sample(boards, "slow")
        assert measured.error is None
        assert lost
        assert process_of(boards, "a") != lost[0]
        assert not told


def test_a_board_that_hangs_costs_its_time_and_another_goes_on(tmp_path: Path) -> None:
    with farm(tmp_path, "a", "b", hang_s=1.0) as (boards, _):
        with ThreadPoolExecutor(2) as threads:  # each answers once
            barrier = threading.Barrier(2)
            list(threads.map(lambda _: boards.run(lambda client: barrier.wait(20)), range(2)))
        os.kill(process_of(boards, "a"), signal.SIGSTOP)
        names = []

        def asked(client: AgentClient) -> object:
            names.append(client.board.name)
            return client.request("has", sha256=[])["has"]

        boards._states["pipe:b"].taken = True  # busy while the other is found to hang
        with ThreadPoolExecutor(1) as threads:
            result = threads.submit(boards.run, asked)
            while not boards._states["pipe:a"].failures:
                time.sleep(0.02)
            boards._give_back(boards._states["pipe:b"])
            assert result.result(30) == []
    assert names[0] == "pipe:a"


class Scripted:
    """Boards that fail as told: by name, what each use of it raises."""

    def __init__(self, **script: list[BaseException | None]) -> None:
        self.script, self.uses = script, list[str]()

    def __call__(self, board: Board) -> AgentClient:
        return FakeClient(board, self)  # type: ignore[return-value]

    def use(self, client: "FakeClient") -> str:
        label = client.board.name.removeprefix("pipe:")
        self.uses.append(label)
        if self.script.get(label) and (error := self.script[label].pop(0)):
            raise error
        return label


class FakeClient:
    alive = True

    def __init__(self, board: Board, script: Scripted) -> None:
        self.board, self.script = board, script
        self.facts = replace(FACTS, cpu=f"cpu of {board.name[-1]}") if board.name.endswith("z") else FACTS

    def kill(self) -> None:
        pass

    close = kill


FACTS = pool.BoardFacts("Linux", "aarch64", "a cpu", 4)


def scripted(script: Scripted, *labels: str) -> tuple[Boards, list[str]]:
    told: list[str] = []
    return Boards([Pipe(label) for label in labels], script, told.append), told


def use(boards: Boards, script: Scripted) -> str:
    return boards.run(script.use)  # type: ignore[arg-type]


def lost(message: str = "a was lost", again: bool = True) -> BoardLost:
    return BoardLost(message, again=again)


def test_what_a_board_loses_another_does() -> None:
    script = Scripted(a=[None, lost(), lost()])
    boards, told = scripted(script, "a", "b")
    assert [use(boards, script) for _ in range(3)] == ["a", "b", "b"] or script.uses[:2] == ["a", "a"]
    assert boards.left == 2
    assert not told


def test_a_board_that_never_answered_is_given_up_at_once_and_people_hear_of_it() -> None:
    script = Scripted(a=[lost("pipe:a cannot be reached")])
    boards, told = scripted(script, "a", "b")
    assert use(boards, script) == "b"
    assert told == ["pipe:a cannot be reached; 1 of 2 boards go on"]
    assert boards.left == 1


def test_a_board_that_takes_its_time_to_answer_is_waited_for_audibly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SLOW_S", 0.01)
    heard, told, script = threading.Event(), list[str](), Scripted()

    def tell(text: str) -> None:
        told.append(text)
        heard.set()

    def launch(board: Board) -> AgentClient:
        assert heard.wait(30)
        return script(board)

    assert use(Boards([Pipe("a")], launch, tell), script) == "a"
    assert told == ["pipe:a: waiting for it to answer"]


def test_none_left_says_why_each_went_and_what_to_do() -> None:
    script = Scripted(a=[None, lost("a: key refused", again=False)], b=[lost("b: no Python", again=False)])
    boards, _ = scripted(script, "a", "b")
    use(boards, script)
    with pytest.raises(TrilobitError) as caught:
        use(boards, script)
    assert str(caught.value).startswith(
        "no board is left: a: key refused; b: no Python. What was measured is kept"
    )


def test_a_lone_board_that_never_answered_says_only_that() -> None:
    script = Scripted(a=[lost("a cannot be reached: is it on?")])
    boards, _ = scripted(script, "a")
    with pytest.raises(TrilobitError, match=r"^a cannot be reached: is it on\?$"):
        use(boards, script)
    boards.reconsider()
    assert use(boards, script) == "a"


def test_what_is_no_loss_is_passed_on_and_the_board_is_free_again() -> None:
    script = Scripted(a=[TrilobitError("a bad file")])
    boards, _ = scripted(script, "a")
    with pytest.raises(TrilobitError, match="a bad file"):
        use(boards, script)
    assert use(boards, script) == "a"


def test_boards_that_are_not_alike_do_not_measure_one_profile() -> None:
    script = Scripted(a=[None, lost("a is gone", again=False)])
    boards, _ = scripted(script, "a", "z")
    assert use(boards, script) == "a"
    with pytest.raises(TrilobitError, match="boards that measure one profile must be alike"):
        use(boards, script)


def test_as_many_calls_at_a_time_as_there_are_boards() -> None:
    script = Scripted()
    boards, _ = scripted(script, "a", "b", "c")
    barrier = threading.Barrier(3)

    def together(client: object) -> str:
        barrier.wait(20)
        return client.board.name  # type: ignore[attr-defined]

    with ThreadPoolExecutor(6) as threads:
        names = list(threads.map(lambda _: boards.run(together), range(6)))
    assert sorted(names) == sorted(2 * ["pipe:a", "pipe:b", "pipe:c"])


def test_a_profile_keeps_what_was_measured_when_the_last_board_goes(tmp_path: Path) -> None:
    """And goes on from there."""
    layers = [map_layer("conv", (16, size, size), 16, activation="relu") for size in (2, 4, 6, 8)]
    with farm(tmp_path, "a") as (boards, _):
        board = device(boards)
        profile = DeviceProfile(board.describe(), PLAN, {})
        rng, grown = np.random.default_rng(0), profile

        def emit(work: object) -> bytes:
            return b"good"

        steps = profile_layers(board, profile, layers, emit=emit, rng=rng, again=False)
        grown = next(steps)
        assert grown.table
        boards._states["pipe:a"].client.kill()  # type: ignore[union-attr]
        boards._launch = unreachable
        with pytest.raises(TrilobitError, match=r"cannot be reached. What was measured is kept"):
            next(steps)
        kept = dict(grown.table)
        boards._launch = agent(tmp_path)
        boards.reconsider()
        *_, grown = profile_layers(board, grown, layers, emit=emit, rng=rng, again=False)
    assert set(layers) <= set(grown.table)
    assert {layer: grown.table[layer] for layer in kept} == kept


def test_two_boards_measure_one_profile_and_the_loss_of_one_costs_nothing(tmp_path: Path) -> None:
    layers = [map_layer("conv", (16, size, size), 16, activation="relu") for size in range(2, 8)]
    with farm(tmp_path, "a", "b") as (boards, told):
        board = device(boards)
        profile = DeviceProfile(board.describe(), PLAN, {})
        assert board.parallel == 2
        rng, lost = np.random.default_rng(0), False
        for grown in profile_layers(board, profile, layers, emit=lambda work: b"good", rng=rng, again=False):
            profile = grown
            clients = [state.client for state in boards._states.values() if state.client is not None]
            if not lost and len(clients) == 2:
                boards._launch, lost = Losing(boards._launch, "pipe:b"), True
                os.kill(process_of(boards, "b"), signal.SIGKILL)
    assert set(layers) <= set(profile.table)
    assert not [row.error for row in profile.table.values() if row.error]
    assert lost
    assert all("boards go on" in line for line in told)


class Losing:
    """Starts agents on all boards but one."""

    def __init__(self, launch: Launch, name: str) -> None:
        self.launch, self.name = launch, name

    def __call__(self, board: Board) -> AgentClient:
        return unreachable(board) if board.name == self.name else self.launch(board)


def unreachable(board: Board) -> AgentClient:
    raise BoardLost(f"{board.name} cannot be reached")
