"""Boards over RPC, with TVM's real tracker and real servers on this machine."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.measure.measurement import MeasurePlan, Samples
from hw_profiles.profiles import batches, profiler
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.reference.integer_ops import run_unit
from hw_profiles.reference.random_units import random_inputs, random_numbers
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.plugin import choose
from hw_profiles.runtimes.runtime import Job
from hw_profiles.runtimes.transports.tvm_rpc import boards
from hw_profiles.runtimes.transports.tvm_rpc import tracker as tracker_module
from hw_profiles.runtimes.transports.tvm_rpc.boards import Board, Boards
from hw_profiles.runtimes.transports.tvm_rpc.remote import TvmRpc, open_boards
from hw_profiles.runtimes.transports.tvm_rpc.tracker import Tracker, parse_tracker
from hw_profiles.runtimes.tvm_cpu.compile import compile_candidates, link_shared
from hw_profiles.runtimes.tvm_cpu.dot import sums_of
from hw_profiles.runtimes.tvm_cpu.runtime import open_tvm
from hw_profiles.runtimes.tvm_cpu.target import host_target
from hw_profiles.runtimes.tvm_cpu.templates import template_of

START_S = 180.0  # a tracker and servers, each of which imports TVM twice
FACTOR = 10.0  # between a unit's time here and over RPC, on a busy machine; a window is 50 runs and more
pytestmark = pytest.mark.slow  # servers of their own; `.ci/run` runs them all the same
PLAN = MeasurePlan(sessions=1, rounds=5, waiting_s=0.1)
UNITS = tuple(map_layer("conv", (16, 8, 8), 16 * n) for n in range(1, 9))
INTEGER = map_layer(
    "conv", (16, 9, 9), 16, 3, 2, 16, activation="relu", weight_format="int8", activation_format="int8"
)


@dataclass
class Farm:
    """A tracker and servers, each in a process group of its own: they start processes themselves.

    Attributes:
        servers: by port.
    """

    tracker: Tracker
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    servers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        command = [sys.executable, "-m", module, "--host=127.0.0.1", *arguments]
        self.processes.append(subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True))
        return self.processes[-1]

    def add(self, key: str) -> None:
        port = free_port()
        ports = (f"--port={port}", f"--port-end={port + 1}")
        where = f"--tracker={self.tracker.name}"
        self.servers[port] = self.start("tvm.exec.rpc_server", where, f"--key={key}", *ports)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Like pulling the plug."""
        if process in self.processes:
            self.processes.remove(process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            if ready():
                return
        except TrilobitError:
            pass
        time.sleep(0.1)
    raise TimeoutError("the tracker or a server did not start")


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """One board `steady`, two boards `doomed`."""
    farm = Farm(Tracker("127.0.0.1", free_port()))
    port = farm.tracker.port
    try:
        farm.start("tvm.exec.rpc_tracker", f"--port={port}", f"--port-end={port + 1}")
        wait_until(lambda: farm.tracker.boards() == {})
        for key in ("steady", "doomed", "doomed"):
            farm.add(key)
        wait_until(lambda: farm.tracker.boards() == {"steady": 1, "doomed": 2})
        yield farm
    finally:
        for process in list(farm.processes):
            farm.kill(process)


@pytest.fixture(scope="module")
def steady(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> MeasuredDevice:
    folder = tmp_path_factory.mktemp("steady")
    return open_boards(farm.tracker.name, "steady", database=folder)


def boards_of(device: MeasuredDevice) -> Boards:
    assert isinstance(device.transport, TvmRpc)
    return device.transport.boards


@pytest.fixture
def closed_port() -> str:
    return f"127.0.0.1:{free_port()}"


def jobs(layers: Sequence[Layer]) -> list[Job]:
    return [Job(single(layer), lambda: b"") for layer in layers]


def test_an_unreachable_tracker_is_named_at_once(closed_port: str, tmp_path: Path) -> None:
    backend = open_boards(closed_port, "pi", database=tmp_path)
    assert backend.describe().name == "tvm-rpc-pi-1t"  # a saved profile can be used without boards
    start = time.monotonic()
    for use in (lambda: backend.parallel, lambda: backend.measure(jobs(UNITS[:1]), PLAN)):
        with pytest.raises(TrilobitError, match=f"no TVM tracker answers at {closed_port}.*rpc_tracker -"):
            use()
    assert time.monotonic() - start < 30  # TVM's own client would try for a minute


def test_what_listens_but_is_no_tracker_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        tracker = Tracker("127.0.0.1", listening.getsockname()[1])
        with pytest.raises(TrilobitError, match=r"no TVM tracker answers.*timed out"):
            tracker.boards()


@pytest.mark.parametrize("text", ["", "localhost", "localhost:", ":9190", "localhost:x", "localhost:70000"])
def test_a_tracker_is_written_host_port(text: str) -> None:
    with pytest.raises(TrilobitError, match="HOST:PORT"):
        parse_tracker(text)


def test_boards_need_both_a_tracker_and_a_key() -> None:
    for given in ("tracker=localhost:9190", "key=pi"):
        with pytest.raises(TrilobitError, match="both a tracker and a key"):
            choose(f"tvm:{given}")


def test_a_key_that_nobody_serves_is_told_from_those_served(farm: Farm, tmp_path: Path) -> None:
    served = r"no board serves the key 'pi'.*keys served: doomed \(2\), steady \(1\).*rpc_server --tracker="
    backend = open_boards(farm.tracker.name, "pi", database=tmp_path)
    with pytest.raises(TrilobitError, match=served):
        assert backend.parallel


def test_a_board_computes_every_bit_as_here(steady: MeasuredDevice, tmp_path: Path) -> None:
    rng, target = np.random.default_rng(0), host_target()
    numbers, inputs = random_numbers(INTEGER, rng, sums=sums_of(target)), random_inputs(INTEGER, rng)
    (unit,) = compile_candidates(INTEGER, target, limit=1)
    (tmp_path / "unit.o").write_bytes(unit.code)
    link_shared(target, [str(tmp_path / "unit.o")], tmp_path / "unit.so")
    arrays = [*inputs, *template_of(INTEGER).pack(INTEGER, numbers, target, unit.tile)]
    arrays = [array.reshape(each.shape) for array, each in zip(arrays, unit.arguments, strict=False)]
    arrays.append(np.zeros(unit.arguments[-1].shape, unit.arguments[-1].dtype))

    library, borrowed = tmp_path / "unit.so", boards_of(steady)
    found, seconds = borrowed.run(lambda board: board.try_out(library, unit.symbol, arrays))

    wanted = run_unit(INTEGER, numbers, inputs)
    assert np.array_equal(found.reshape(wanted.shape), wanted)
    assert seconds > 0


def test_a_function_that_does_not_run_is_an_error_of_its_own(steady: MeasuredDevice, tmp_path: Path) -> None:
    (tmp_path / "junk.so").write_bytes(b"no library")
    with pytest.raises(RuntimeError, match="Failed to load") as error:
        boards_of(steady).run(lambda board: board.try_out(tmp_path / "junk.so", "main", [np.zeros(1)]))
    assert not isinstance(error.value, TrilobitError)


@pytest.mark.slow
def test_a_board_like_this_machine_takes_as_long(steady: MeasuredDevice, tmp_path: Path) -> None:
    here = open_tvm(database=tmp_path)
    there_s, here_s = (
        np.array([each.median_s for each in backend.measure(jobs(UNITS[-2:]), PLAN)])
        for backend in (steady, here)
    )
    assert steady.describe() == steady.describe()
    assert steady.describe().name == "tvm-rpc-steady-1t"
    assert (there_s < FACTOR * here_s).all()
    assert (here_s < FACTOR * there_s).all()


@pytest.mark.slow
def test_a_board_that_hangs_is_not_waited_for(
    farm: Farm, steady: MeasuredDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "ANSWER_S", 8.0)
    monkeypatch.setattr(boards, "TRIES", 1)

    def stopped(board: Board) -> list[Samples | str]:
        os.killpg(farm.servers[board.offer.port].pid, signal.SIGSTOP)
        return board.sample([boards_of(steady).reference], [None], replace(PLAN, rounds=1))

    try:
        with pytest.raises(TrilobitError, match=r"board 127\.0\.0\.1:\d+ was lost: no answer in 9 s"):
            boards_of(steady).run(stopped)
    finally:
        for server in farm.servers.values():
            os.killpg(server.pid, signal.SIGCONT)
    assert boards_of(steady).run(lambda board: board.offer.port) in farm.servers  # the server took no harm


def test_a_board_that_dies_is_replaced_and_nothing_measured_is_lost(
    farm: Farm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_onnx: Callable[[Workload], bytes],
) -> None:
    sampled = list[int]()  # the ports of the boards, in order
    both, sample = threading.Barrier(2), Board.sample

    def dying(
        board: Board, programs: Sequence[Any], contexts: Sequence[Any], plan: MeasurePlan
    ) -> list[Samples | str]:
        sampled.append(board.offer.port)
        if len(sampled) <= 2:
            both.wait(START_S)  # two calls have a board each
        if len(sampled) == 3:
            farm.kill(farm.servers[board.offer.port])
        return sample(board, programs, contexts, plan)

    monkeypatch.setattr(Board, "sample", dying)
    monkeypatch.setattr(batches, "GROUP", 3)
    backend = open_boards(farm.tracker.name, "doomed", database=tmp_path)
    assert backend.parallel == 2
    grown = list(
        profiler.profile_layers(
            backend,
            DeviceProfile(backend.describe(), PLAN),
            UNITS,
            emit=no_onnx,
            rng=np.random.default_rng(0),
            again=False,
        )
    )

    assert len(sampled) == 5  # four groups, one of them twice
    assert sampled[0] != sampled[1]
    assert (tmp_path / "boards-doomed").is_dir()  # tuned there, apart from what is tuned here
    assert sampled[2] not in sampled[3:]
    assert set(grown[-1].table) == set(UNITS)
    assert all(row.error is None for row in grown[-1].table.values())
    assert all(grown[-1].table[layer] == row for layer, row in grown[0].table.items())

    assert backend.parallel == 1
    farm.kill(farm.servers[sampled[-1]])
    with pytest.raises(TrilobitError, match="no board serves the key 'doomed'"):
        backend.measure(jobs(UNITS[:1]), PLAN)
