"""The agent through a pipe: what it answers, what it refuses, and what it leaves behind."""

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.interleave import watching
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.plugin import open_device
from hw_profiles.runtimes.runtime import Artifact, Job
from hw_profiles.runtimes.transports.agent_client import AgentClient, Refused, sha256_of
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.launch import PythonAgent
from nas.stages.profile import emit_with_random_numbers
from tests.hw_profiles.transports.pipes import Pipe, agent, device, engine

PLAN = MeasurePlan(rounds=3, waiting_s=0.0, window_s=1e-4)
CONV = single(map_layer("conv", (16, 8, 8), 16, activation="relu"))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[MeasuredDevice]:
    """A board with an engine that does what the content of a file says."""
    boards = Boards([Pipe(modules=engine(tmp_path / "engine"))], agent(tmp_path))
    yield device(boards)
    boards.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeasuredDevice]:
    """A board with ONNX Runtime."""
    boards = Boards([Pipe()], agent(tmp_path_factory.mktemp("board")))
    yield device(boards)
    boards.close()


def artifact(words: str) -> Artifact:
    return Artifact(words.encode())


def sample(device: MeasuredDevice, *words: str, plan: MeasurePlan = PLAN):
    return device.transport.sample(device.runtime, list(map(artifact, words)), [None] * len(words), plan)


def model(fmt: str = "fp32") -> bytes:
    work = single(map_layer("conv", (16, 8, 8), 16, 1, 1, 1, "relu", fmt, fmt))
    return emit_with_random_numbers(work, seed=0)


def test_it_runs_a_file_as_this_machine_does(real: MeasuredDevice) -> None:
    local = open_device("ort").runtime
    assert local is not None
    for content in (model(), model("int8")):
        ours, theirs = local.compile(Artifact(content)), real.runtime.compile(Artifact(content))
        assert (theirs.inputs, theirs.outputs) == (ours.inputs, ours.outputs)
        image = np.random.default_rng(0).standard_normal((1, 16, 8, 8), np.float32)
        answers, expected = (each.run({ours.inputs[0].name: image}) for each in (theirs, ours))
        assert list(answers) == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(answers[name], array)
            assert answers[name].dtype == array.dtype
        assert theirs.kernels() == ours.kernels()
        assert theirs.named_kernels() == ours.named_kernels()


def test_it_says_what_this_machine_says(real: MeasuredDevice) -> None:
    ours, theirs = open_device("ort").describe(), real.describe()
    assert theirs == real.describe()
    assert theirs.name == f"pipe-here-{ours.name}"
    assert (theirs.cpu, theirs.engine, theirs.engine_version) == (ours.cpu, ours.engine, ours.engine_version)
    assert theirs.integer_sums == ours.integer_sums
    assert theirs.board is not None
    assert theirs.board.address == "pipe:here"
    assert "numpy" in theirs.board.versions
    assert "one of" in str(theirs.board)


def test_kernels_are_timed_by_name(real: MeasuredDevice) -> None:
    local = open_device("ort").runtime
    ours = local.kernel_times(Artifact(model()), 2)  # type: ignore[union-attr]
    theirs = real.runtime.kernel_times(Artifact(model()), 2)  # type: ignore[attr-defined]
    assert [(k.name, k.op, k.reads, k.gives) for k in theirs] == [
        (k.name, k.op, k.reads, k.gives) for k in ours
    ]
    assert all(kernel.seconds >= 0 for kernel in theirs)


def test_jobs_are_measured_and_a_bad_one_is_a_row(real: MeasuredDevice) -> None:
    bad = Job(CONV, lambda: b"no model at all")
    good = Job(CONV, model)
    one, other, last = real.measure([good, bad, good], PLAN)
    assert len(one.samples_s) == len(last.samples_s) == PLAN.rounds
    assert other.error is not None
    assert "\n" not in other.error
    assert one.load is not None


def test_runs_are_timed_one_request_each(real: MeasuredDevice) -> None:
    run = real.runtime.compile(Artifact(model())).timed("wall")
    assert run(1) < run(200)


def test_open_sizes_are_bound_by_an_example(real: MeasuredDevice) -> None:
    content = model()
    executable = real.runtime.compile(Artifact(content))
    name = executable.inputs[0].name
    example = {name: np.ones((1, 16, 8, 8), np.float32)}
    assert executable.timed("wall", example=example)(2) > 0
    [measured] = real.transport.sample(real.runtime, [Artifact(content, example=example)], [None], PLAN)
    assert measured.error is None
    [lacking] = real.transport.sample(
        real.runtime, [Artifact(content, example={"z": example[name]})], [None], PLAN
    )
    assert lacking.error is not None
    assert name in lacking.error


# -- an engine that does what it is told --------------------------------------------------------------------


def test_samples_of_a_context_are_of_the_same_passes(here: MeasuredDevice) -> None:
    measured = here.transport.sample(here.runtime, [artifact("a"), artifact("b")], ["one", "one"], PLAN)
    assert len({(len(m.samples_s), m.quiet_share) for m in measured}) == 1


def test_what_an_engine_rejects_is_a_row(here: MeasuredDevice) -> None:
    good, bad, last = sample(here, "good", "reject", "good too")
    assert bad.error == "RuntimeError: rejects this file"
    assert good.error is last.error is None


def test_what_ends_the_engine_is_a_row_and_the_rest_is_measured(here: MeasuredDevice) -> None:
    good, bad, worse, last = sample(here, "good", "crash", "crash again", "good too")
    assert good.error is last.error is None
    assert bad.error == worse.error == "ended the process that ran it: SIGSEGV"


def test_a_file_that_crashes_is_one_line_and_no_lost_board(here: MeasuredDevice) -> None:
    with pytest.raises(TrilobitError, match=r"^ended the process that ran it: SIGSEGV$"):
        here.runtime.compile(artifact("crash"))
    with pytest.raises(TrilobitError, match=r"^RuntimeError: rejects this file$"):
        here.runtime.compile(artifact("reject"))
    assert here.runtime.compile(artifact("good")).inputs[0].shape == (None, 2)


def test_an_empty_call_asks_nobody() -> None:
    def nobody(board: object) -> AgentClient:
        raise AssertionError(board)

    assert device(Boards([Pipe()], nobody)).measure([], PLAN) == []


def test_a_watcher_hears_of_passes(here: MeasuredDevice) -> None:
    seen: list[tuple[float, bool]] = []
    with watching(lambda share, waiting: seen.append((share, waiting))):
        sample(here, "slow")
    assert seen
    assert all(0 <= share <= 1 for share, _ in seen)


def test_files_are_sent_once(here: MeasuredDevice, tmp_path: Path) -> None:
    sample(here, "one", "two")
    kept = {path.name for path in (tmp_path / "cache").iterdir() if len(path.name) == 64}
    assert kept == {sha256_of(b"one"), sha256_of(b"two")}
    for name in kept:
        assert sha256_of((tmp_path / "cache" / name).read_bytes()) == name


def test_a_file_that_was_changed_there_is_sent_again(here: MeasuredDevice, tmp_path: Path) -> None:
    sample(here, "one")
    (tmp_path / "cache" / sha256_of(b"one")).write_bytes(b"reject")
    [again] = sample(here, "one")
    assert again.error is None


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    client = agent(tmp_path, cache_bytes=30)(Pipe(modules=engine(tmp_path / "engine")))
    contents = [bytes([65 + i]) * 10 for i in range(4)]
    for content in contents[:3]:
        client.put({sha256_of(content): content})
        time.sleep(0.01)
    client.forget()
    client.put({sha256_of(contents[0]): contents[0]})  # used again
    time.sleep(0.01)
    client.put({sha256_of(contents[3]): contents[3]})
    there = client.request("has", sha256=list(map(sha256_of, contents)))["has"]
    client.close()
    assert there == [True, False, True, True]


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    boards = Boards([Pipe(modules=engine(tmp_path / "engine"))], agent(tmp_path, cache_bytes=10))
    with pytest.raises(TrilobitError, match=r"no room for .*\(cache_mb=N\)") as caught:
        sample(device(boards), "much more than ten bytes")
    boards.close()
    assert "\n" not in str(caught.value)


def test_without_a_cache_nothing_stays(tmp_path: Path) -> None:
    boards = Boards([Pipe(modules=engine(tmp_path / "engine"))], agent(tmp_path, cache_bytes=0))
    [measured] = sample(device(boards), "good")
    boards.close()
    assert measured.error is None
    assert list((tmp_path / "cache").iterdir()) == []


# -- nothing stays behind ------------------------------------------------------------------------------------


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return list(map(int, listed))


def gone(pid: int, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def started(tmp_path: Path) -> AgentClient:
    client = agent(tmp_path)(Pipe(modules=engine(tmp_path / "engine")))
    client.request("engine", engine={"name": "onnxruntime", "options": {}})
    return client


@pytest.mark.parametrize("busy", [False, True])
def test_an_agent_whose_client_dies_takes_everything_away(tmp_path: Path, busy: bool) -> None:
    client = started(tmp_path)
    process = client._process
    [worker] = children_of(process.pid)
    if busy:  # it hangs in the engine
        content = b"hang"
        client.put({sha256_of(content): content})
        wanted = {"sha256": sha256_of(content), "engine": {"name": "onnxruntime", "options": {}}}
        client._send(json.dumps({"do": "describe", "artifact": wanted}).encode() + b"\n")
        time.sleep(0.2)
    assert list((tmp_path / "cache").glob("session-*"))
    client._input.close()
    assert process.wait(10) == 0
    assert gone(worker)
    assert not list((tmp_path / "cache").glob("session-*"))
    client.kill()


def test_a_worker_does_not_outlive_an_agent_that_is_killed(tmp_path: Path) -> None:
    client = started(tmp_path)
    [worker] = children_of(client._process.pid)
    os.kill(client._process.pid, signal.SIGKILL)
    assert gone(worker)
    client.kill()
    left = list((tmp_path / "cache").glob("session-*"))
    assert left
    started(tmp_path).close()  # the next one tidies up
    assert not list((tmp_path / "cache").glob("session-*"))


def test_an_agent_without_requests_ends(tmp_path: Path) -> None:
    class Impatient(PythonAgent):
        def _options(self, digest: str):
            return {**super()._options(digest), "idle_s": 0.2}

    usual = agent(tmp_path)
    client = Impatient(usual.pythons, usual.folder, usual.cache_bytes, usual.hang_s, usual.lock)(Pipe())
    assert client._process.wait(10) == 0
    client.kill()


def test_an_interruption_ends_the_conversation_so_that_no_answer_is_read_as_another(
    here: MeasuredDevice,
) -> None:
    def interrupt(share: float, waiting: bool) -> None:
        raise KeyboardInterrupt

    sample(here, "good")
    with watching(interrupt), pytest.raises(KeyboardInterrupt):
        sample(here, "slow")
    [measured] = sample(here, "good")  # by a new one
    assert measured.error is None


# -- one measurement at a time -------------------------------------------------------------------------------


def answer(device: MeasuredDevice, words: str) -> list[object]:
    """Run a file once, without timing it."""
    assert device.runtime is not None
    return [device.runtime.compile(artifact(words)).run({"x": np.zeros((1, 2), np.float32)})]


@pytest.mark.parametrize("use", [sample, answer])
def test_a_second_run_waits_and_says_for_whom(
    tmp_path: Path, use: Callable[[MeasuredDevice, str], list[object]]
) -> None:
    told: list[str] = []
    boards = Boards([Pipe(modules=engine(tmp_path / "engine"))], agent(tmp_path), told.append)
    path = tmp_path / "lock"
    path.write_text(json.dumps({"user": "ann", "host": "laptop", "pid": 7, "since": "2026-11-30 12:00:00"}))
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.extend(use(device(boards), "good")))
        thread.start()
        end = time.monotonic() + 30
        while not told and time.monotonic() < end:
            time.sleep(0.02)
        assert not results
    thread.join(30)
    boards.close()
    assert told == [
        "pipe:here: waiting: ann@laptop (process 7) measures on it since 2026-11-30 12:00:00",
    ]
    assert len(results) == 1
    assert path.read_text() == ""  # nobody has it


# -- what is missing there -----------------------------------------------------------------------------------


def refusal(tmp_path: Path, board: Pipe, launch: PythonAgent | None = None) -> str:
    boards = Boards([board], launch or agent(tmp_path))
    try:
        with pytest.raises(TrilobitError) as caught:
            device(boards).describe()
    finally:
        boards.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_python(tmp_path: Path) -> None:
    launch = PythonAgent(("/nowhere/python3", "/nor/here/python3"))
    assert refusal(tmp_path, Pipe(), launch) == (
        "pipe:here has no Python (/nowhere/python3, /nor/here/python3): install Python 3.8 or later there, "
        "or say where it is: python=/PATH/TO/python3"
    )


def test_an_old_python(tmp_path: Path) -> None:
    old = "import sys; sys.version_info = (3, 6, 9); code = sys.argv[3]\ndel sys.argv[1:4]\nexec(code)"
    said = refusal(tmp_path, Pipe(instead=old))
    assert "is Python 3.6 is older than 3.8" in said
    assert "python=/PATH/TO/python3" in said


def test_no_runtime(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "onnxruntime.py").write_text("raise ImportError('no such library')")
    said = refusal(tmp_path, Pipe(modules=str(folder)))
    assert said.startswith("pipe:here: onnxruntime: not installed (no such library); install it there: ")
    assert said.endswith("-m pip install 'onnxruntime>=1.20' numpy")


def test_no_numpy(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / "numpy.py").write_text("raise ImportError('no such library')")
    said = refusal(tmp_path, Pipe(modules=str(folder)))
    assert "numpy: not installed (no such library)" in said
    assert "pip install" in said


def test_an_old_runtime(tmp_path: Path) -> None:
    said = refusal(tmp_path, Pipe(modules=engine(tmp_path / "engine", "1.9.0")))
    assert said.startswith(
        "pipe:here has onnxruntime 1.9.0, and our files need 1.20 or later; install it there: "
    )


def test_no_such_provider(tmp_path: Path) -> None:
    boards = Boards([Pipe(modules=engine(tmp_path / "engine"))], agent(tmp_path))
    with pytest.raises(TrilobitError, match="no execution provider CUDAExecutionProvider; it has CPU"):
        device(boards, provider="CUDA").describe()
    boards.close()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert "cannot make" in refusal(tmp_path, Pipe())


def test_a_login_that_talks(tmp_path: Path) -> None:
    talks = (
        "import sys; code = sys.argv[3]; del sys.argv[1:4]\n"
        "print('Welcome!'); print('{}'); print(1, flush=True); exec(code)"
    )
    boards = Boards([Pipe(instead=talks)], agent(tmp_path))
    assert boards.facts.cores > 0
    boards.close()


def test_a_request_that_means_nothing_is_refused(tmp_path: Path) -> None:
    client = started(tmp_path)
    wanted = {"name": "onnxruntime", "options": {}}
    requests: list[tuple[str, dict[str, object]]] = [
        ("dance", {}),
        ("has", {}),
        ("has", {"sha256": ["../../etc/passwd"]}),
        ("describe", {}),
        ("describe", {"artifact": {"sha256": "0" * 64, "engine": wanted}}),
        ("describe", {"artifact": {"sha256": "0" * 64, "engine": {"name": "os"}}}),
        ("run", {"artifact": 3, "inputs": None}),
        ("sample", {"artifacts": [{}], "contexts": [], "plan": {}}),
    ]
    for do, fields in requests:
        with pytest.raises(Refused) as caught:
            client.request(do, **fields)
        assert "\n" not in str(caught.value)
    assert client.request("has", sha256=[])["has"] == []
    client.close()


def test_no_object_is_ever_unpickled_there(tmp_path: Path) -> None:
    client = started(tmp_path)
    np.savez(tmp_path / "bad.npz", names=np.array(["x"]), array_0=np.array([{"a": 1}], dtype=object))
    content, file = (tmp_path / "bad.npz").read_bytes(), b"good"
    client.put({sha256_of(content): content, sha256_of(file): file})
    wanted = {"sha256": sha256_of(file), "engine": {"name": "onnxruntime", "options": {}}}
    with pytest.raises(Refused, match="allow_pickle=False"):
        client.request("run", artifact=wanted, inputs=sha256_of(content))
    client.close()
