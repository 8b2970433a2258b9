"""Boards over ssh: how they are written, and a real sshd on loopback."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.workload import single
from hw_profiles.measure.interleave import watching
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.device import MeasuredDevice
from hw_profiles.runtimes.plugin import choose, device_kind, open_device
from hw_profiles.runtimes.runtime import Artifact
from hw_profiles.runtimes.transports import board_kind
from hw_profiles.runtimes.transports import boards as pool
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.ssh import PROGRAM, SshBoard, ssh_board
from nas.cli.main import main
from nas.stages.profile import emit_with_random_numbers
from tests.hw_profiles.transports.pipes import agent, device
from tests.hw_profiles.transports.sshd import Server, served, why_not

PLAN = MeasurePlan(rounds=3, waiting_s=0.0, window_s=1e-4)


# -- how boards are written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "board"),
    [
        ("pi", SshBoard("pi")),
        ("pi@10.0.0.5", SshBoard("10.0.0.5", "pi")),
        ("pi@board.local:2222", SshBoard("board.local", "pi", 2222)),
        ("me@[fe80::1%eth0]:22", SshBoard("[fe80::1%eth0]", "me", 22)),
    ],
)
def test_addresses(text: str, board: SshBoard) -> None:
    assert ssh_board(text) == board
    assert board.name == f"ssh:{text}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=reboot",
        "a@-x",
        "a b",
        "a;b",
        "$(reboot)",
        "a@b:0",
        "a@b:65536",
        "a@b:x",
        "@b",
        "b:",
        "a@b@c",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(TrilobitError, match="a board is written ssh:USER@HOST:PORT/RUNTIME, got"):
        ssh_board(text)


@given(st.text(max_size=12))
def test_an_address_never_is_an_option_of_ssh(text: str) -> None:
    with contextlib.suppress(TrilobitError):
        board = ssh_board(text)
        assert not board.host.startswith("-")
        assert not board.user.startswith("-")
        assert not set(" '\"$;&|`\\\n") & set(text)


def test_a_device_is_a_runtime_with_its_options_on_a_board() -> None:
    choice = choose("ssh:pi@10.0.0.5:2222/ort:threads=4,python=/opt/py/bin/python3,hang_s=30")
    assert choice.settings["threads"] == 4
    assert choice.settings["python"] == "/opt/py/bin/python3"
    assert choice.settings["cache_mb"] == 512
    assert choice.kind.artifact == "onnx"
    assert choice.kind.title == "ONNX Runtime on ssh:pi@10.0.0.5:2222"
    assert choose(str(choice)) == choice
    assert choose(choice.name, choice.settings) == choice
    assert choose("ssh:pi/ort:CUDA").settings["provider"] == "CUDA"
    assert choose("ssh:pi").kind.engine == "onnxruntime"
    assert choose("ssh", {"board": "pi/ort"}) == choose("ssh:pi/ort")
    assert "ssh:a, ssh:b" in choose("ssh:a,b/ort").kind.title


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssh", "device 'ssh' needs to know which one: write ssh:USER@HOST"),
        ("ssh:", "device 'ssh' needs to know which one"),
        ("ssh:pi/table", "'table' cannot run on a board; write ssh:ADDRESS/RUNTIME, where RUNTIME is one of"),
        ("ssh:pi/abacus", "'abacus' cannot run on a board"),
        ("ssh:pi;reboot/ort", "a board is written ssh:USER@HOST:PORT/RUNTIME, got 'pi;reboot'"),
        ("ssh:pi/ort:threads=0", "device.threads must be"),
        ("ssh:pi/ort:hang_s=0", "device.hang_s must be"),
        ("ssh:pi/ort:speed=3", "device 'ssh:pi/ort' has no option speed"),
    ],
)
def test_what_is_wrong_with_one_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(TrilobitError) as caught:
        choose(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_naming_one_reaches_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAM, "/nowhere/ssh")
    assert device_kind("ssh").artifact == "onnx"
    board = open_device("ssh:never-reached/ort")
    assert board.supports(map_layer("conv", (16, 8, 8), 16))
    with pytest.raises(TrilobitError, match=r"cannot run /nowhere/ssh .*: install an ssh client"):
        board.describe()


@pytest.mark.parametrize(
    ("said", "expected", "again"),
    [
        ("ssh: connect to host h port 22: Connection refused", "cannot be reached", True),
        ("ssh: connect to host h port 22: Connection timed out", "cannot be reached", True),
        (
            "ssh: Could not resolve hostname h: Name or service not known",
            "is no host that is known here",
            False,
        ),
        ("u@h: Permission denied (publickey).", "refused the key", False),
        ("No ED25519 host key is known\nHost key verification failed.", "host key that is not known", False),
        ("client_loop: send disconnect: Broken pipe", "was lost", True),
    ],
)
def test_what_ssh_says_is_said_to_people(said: str, expected: str, again: bool) -> None:
    error = SshBoard("h", "u", 22).failure(255, said)
    assert str(error).startswith("ssh:u@h:22 ")
    assert expected in str(error)
    assert error.again is again
    assert "\n" not in str(error)


# -- a real one ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if reason := why_not():
        pytest.skip(reason)
    with served(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def program(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRAM, server.program())
    monkeypatch.setattr(pool, "AGAIN_S", 0.05)
    board_kind.boards_of.cache_clear()


@contextlib.contextmanager
def reached(tmp_path: Path, *hosts: str, hang_s: float = 60.0) -> Iterator[tuple[Boards, list[str]]]:
    told: list[str] = []
    boards = Boards([ssh_board(host) for host in hosts], agent(tmp_path, hang_s=hang_s), told.append)
    yield boards, told
    boards.close()


def sample(boards: Boards, content: bytes):
    board = device(boards)
    return board.transport.sample(board.runtime, [Artifact(content)], [None], PLAN)


def model() -> bytes:
    return emit_with_random_numbers(single(map_layer("conv", (16, 8, 8), 16)), seed=0)


def settled(tmp_path: Path) -> bool:
    """Wait until no session has anything left on the board."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if not list((tmp_path / "cache").glob("session-*")):
            return True
        time.sleep(0.05)
    return False


def text_of(tmp_path: Path, host: str = "board", **more: str) -> str:
    options = {"python": sys.executable, "folder": str(tmp_path / "cache"), **more}
    return f"ssh:{host}/ort:" + ",".join(f"{key}={value}" for key, value in options.items())


@pytest.mark.usefixtures("program")
def test_a_board_measures_and_runs_what_this_machine_does(tmp_path: Path) -> None:
    board, local = open_device(text_of(tmp_path)), open_device("ort")
    assert isinstance(board, MeasuredDevice)
    info = board.describe()
    assert info.name == "ssh-board-ort-cpu-1t"
    assert info.board is not None
    assert info.board.machine == os.uname().machine
    content = model()
    image = np.random.default_rng(0).standard_normal((1, 16, 8, 8), np.float32)
    ours, theirs = (d.runtime.compile(Artifact(content)) for d in (local, board))  # type: ignore[union-attr]
    [answer], [expected] = (each.run({ours.inputs[0].name: image}).values() for each in (theirs, ours))
    np.testing.assert_array_equal(answer, expected)
    [measured] = board.transport.sample(board.runtime, [Artifact(content)], [None], PLAN)
    assert len(measured.samples_s) == PLAN.rounds
    board.transport.boards.close()  # type: ignore[attr-defined]
    assert settled(tmp_path)
    assert len(list((tmp_path / "cache").iterdir())) >= 2  # files stay, for the next time


@pytest.mark.usefixtures("program")
def test_a_session_that_is_cut_half_way_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    with reached(tmp_path, "board") as (boards, told):
        sample(boards, model())
        cuts: list[int] = []

        def cut(share: float, waiting: bool) -> None:
            if not cuts:
                cuts.extend(server.sessions())
                server.cut()

        with watching(cut):
            [measured] = sample(boards, model())
        assert cuts
        assert measured.error is None
        assert not told
    assert settled(tmp_path)  # that of the session which was cut, too


@pytest.mark.usefixtures("program")
def test_an_agent_that_hangs_is_ended_and_the_other_board_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with reached(tmp_path, "talks", "board", hang_s=2.0) as (boards, _):
        boards.run(lambda client: client.facts)
        first = next(state.client for state in boards._states.values() if state.client is not None)
        [session] = folder.glob("session-*")
        pid = int(session.name.split("-")[1])
        os.kill(pid, signal.SIGSTOP)
        [measured] = sample(boards, model())
        assert measured.error is None
        assert not first.alive
        os.kill(pid, signal.SIGCONT)
    assert settled(tmp_path)


@pytest.mark.usefixtures("program")
def test_an_account_with_a_short_path_works(tmp_path: Path) -> None:
    with reached(tmp_path, "short-path") as (boards, _):
        [measured] = sample(boards, model())
    assert measured.error is None


def refusal(text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> str:
    """Return the one line with which a command ends."""
    command = ["profile", "--space", "digits-mbconv", "--device", text, "-o", str(tmp_path / "run")]
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.mark.usefixtures("program")
def test_a_full_disk_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(text_of(tmp_path, "full-disk"), capsys, tmp_path)
    assert "ssh:full-disk: no room for" in said
    assert "make room there, name another folder (folder=/PATH)" in said


@pytest.mark.usefixtures("program")
def test_no_python_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal("ssh:short-path/ort:python=python3", capsys, tmp_path)
    assert "ssh:short-path has no Python (python3): install Python 3.8 or later there" in said


@pytest.mark.usefixtures("program")
def test_no_runtime_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = Path(sys.base_prefix) / "bin" / "python3"
    said = refusal(f"ssh:board/ort:python={plain},folder={tmp_path / 'cache'}", capsys, tmp_path)
    assert f"install it there: {plain} -m pip install 'onnxruntime>=1.20' numpy" in said


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Host board", "  Port 1"], "cannot be reached"),
        (["Host unknown-key", "  IdentityFile {folder}/stranger", "  Port {port}"], "refused the key"),
        (["Host board", "  UserKnownHostsFile /dev/null"], "host key that is not known here"),
        (["Host board", "  HostName no-such-host.invalid"], "is no host that is known here"),
    ],
)
def test_what_ssh_refuses_is_one_line(
    server: Server,
    lines: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [line.format(folder=server.folder, port=server.port) for line in lines]
    monkeypatch.setenv(PROGRAM, server.program(*lines))
    board_kind.boards_of.cache_clear()
    host = lines[0].split()[1]
    said = refusal(text_of(tmp_path, host), capsys, tmp_path)
    assert f"ssh:{host} " in said
    assert expected in said
