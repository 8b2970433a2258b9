"""A whole `nas profile` of a device without Python, through the real adb client and a stand-in for its
server; and the ways in which that goes wrong.
"""

import fcntl
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("tvm")

from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile
from hw_profiles.runtimes.transports.board_kind import boards_of
from nas.cli.main import main
from supernet.families.family import FAMILIES
from supernet.families.mbconv import MBConvFamily, Stage
from tests.e2e.conftest import ENVIRONMENT, Start
from tests.e2e.small_classifier import small_tune
from tests.e2e.test_tune import CLASSES, evaluated
from tests.hw_profiles.transports.adb_stand_in import StandIn, StandInBoard, folder_of_tools, serving
from tests.nas.tune.networks import image_network
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb: apt-get install adb"),
    pytest.mark.skipif(
        shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc libc6-dev"
    ),
]


def small(*, in_channels: int, classes: int, formats: tuple[str, ...] = ("fp32", "int8")) -> MBConvFamily:
    """A space of some twenty units."""
    return MBConvFamily(
        "small", (8,), 8, (Stage(8, 2, (1,), (16, 32), (3,)),), 16, in_channels, classes, formats
    )


def larger(*, in_channels: int, classes: int, formats: tuple[str, ...] = ("fp32", "int8")) -> MBConvFamily:
    """A space of enough architectures for a predictor of them."""
    stages = (Stage(8, 2, (1, 2), (16, 32), (3,)),)
    return MBConvFamily("larger", (8,), 8, stages, 16, in_channels, classes, formats)


LITTLE = """
[train]
epochs = 1
random_subnets = 1

[sample]
fp32 = 12
quantized = 24

[fit]
predictor = "ridge"

[search]
rounds = 1
finalists = 2
budget = 100
batch = 50

[export]
count = 1
"""


@pytest.fixture
def board(tmp_path: Path) -> StandInBoard:
    (tmp_path / "device").mkdir()
    return StandInBoard(tmp_path / "device", path=folder_of_tools(tmp_path / "bin"))


@pytest.fixture
def server(board: StandInBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with serving(board) as started:
        for name, value in started.environment.items():
            monkeypatch.setenv(name, value)
        boards_of.cache_clear()  # connections to a board stay open as long as a process lives
        yield started


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one test has tuned, the others take."""
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture
def words(
    board: StandInBoard, tuned: Path, tmp_path: Path, quick_measuring: str, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.setattr("nas.stages.profile.FITTED", 2)
    monkeypatch.setattr("nas.stages.profile.HELD_OUT", 1)
    monkeypatch.setattr("hw_profiles.runtimes.transports.boards.AGAIN_S", 0.05)
    monkeypatch.setitem(FAMILIES, "small", f"{__name__}:small")  # type: ignore[call-overload]
    path = tmp_path / "quick.toml"
    path.write_text(quick_measuring + '[space]\nname = "small"\nformats = ["fp32", "int8"]\n')
    device = f"adb:{board.serial}/tvm:database={tuned}"
    return ["profile", str(path), "--device", device, "-o", str(tmp_path / "run")]


def profiled(tmp_path: Path) -> DeviceProfile:
    [path] = (tmp_path / "run" / "profiles").glob("*.json")
    return load_profile(path)


def test_a_device_without_python_is_profiled_and_nothing_of_the_agent_stays(
    server: StandIn, board: StandInBoard, words: list[str], tuned: Path, tmp_path: Path
) -> None:
    assert main(words) == 0
    profile = profiled(tmp_path)
    assert profile.calibration is not None
    assert all(row.error is None for row in profile.table.values())
    device = profile.device
    assert (device.engine, device.figures) == ("apache-tvm", "measured")
    assert device.board is not None
    assert device.board.address == f"adb:{board.serial}"
    assert list((tuned / f"boards-adb-{board.serial}").rglob("*.json"))  # tried out there
    agents = list((board.root / "trilobit").glob("agent-*"))
    assert len(agents) == 1  # it runs as long as this process does
    sent = len(board.sent)
    assert main([*words, "--validate", "1"]) == 0  # the same connection
    assert len(board.sent) == sent


def test_a_device_that_disappears_half_way_costs_nothing_measured(
    server: StandIn, board: StandInBoard, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pull() -> None:
        for _ in range(6000):
            if len(list(board.root.rglob("files/*"))) > 4:
                break
            time.sleep(0.02)
        server.unplug(board)

    thread = threading.Thread(target=pull)
    thread.start()
    assert main(words) == 2
    thread.join()
    error = capsys.readouterr().err
    assert f"adb:{board.serial} " in error
    assert "What was measured is kept: the same command goes on from there" in error
    assert "Traceback" not in error
    server.boards.append(board)
    assert main(words) == 0
    assert profiled(tmp_path).calibration is not None


def test_networks_are_searched_answer_and_are_exported_there(
    server: StandIn, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, "larger", f"{__name__}:larger")  # type: ignore[call-overload]
    path = tmp_path / "quick.toml"
    path.write_text(path.read_text().replace('"small"', '"larger"') + LITTLE)
    assert main(["run", *words[1:]]) == 0
    [folder] = (path for path in (tmp_path / "run" / "export").iterdir() if path.is_dir())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["device"]["board"]["address"] == "adb:board-1"
    assert (folder / "model.so").exists()
    with sqlite3.connect(tmp_path / "run" / "run.db") as store:
        told = store.execute("select value_json from trial_user_attributes where key = 'through'").fetchall()
    assert {json.loads(text).partition(" for llvm")[0] for (text,) in told} == {"library"}
    assert all(text.endswith('on adb:board-1"') for (text,) in told)


def test_a_file_is_compiled_here_and_served_there(
    server: StandIn, board: StandInBoard, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(image_network())
    device = f"adb:{board.serial}/tvm:database={tuned}"
    assert main(["bench", str(path), "--device", device, "--seconds", "0.2", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["settings"]
    assert row["calls"] > 0
    board.state = "offline"
    boards_of.cache_clear()
    assert main(["bench", str(path), "--device", device]) == 2
    assert "is offline" in capsys.readouterr().err


@pytest.mark.usefixtures("confined_here")
def test_a_tune_that_is_killed_or_loses_its_device_goes_on(
    start: Start,
    server: StandIn,
    board: StandInBoard,
    tuned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("hw_profiles.runtimes.transports.boards.AGAIN_S", 0.05)
    folder, device = tmp_path / "tuned", f"adb:{board.serial}/tvm:database={tuned}"
    words = [*small_tune(tmp_path, image=(1, 3, 12, 12), scores=(1, CLASSES)), "--device", device]
    process = start(*words, env={**ENVIRONMENT, **server.environment})
    wait_until(lambda: evaluated(folder) >= 2 or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    wait_until(lambda: not list(board.root.rglob("agent-*")))  # it takes itself away
    known = evaluated(folder)
    assert not (folder / "front.json").exists()

    def pull() -> None:
        wait_until(lambda: evaluated(folder) > known)
        server.unplug(board)

    thread = threading.Thread(target=pull)
    thread.start()
    assert main(words) == 2
    thread.join()
    [error] = capsys.readouterr().err.splitlines()
    assert f"adb:{board.serial} " in error
    assert "What was measured is kept: the same command goes on from there" in error

    server.boards.append(board)
    left = evaluated(folder)
    assert main(words) == 0
    assert evaluated(folder) > left
    assert "profile: already there" in capsys.readouterr().out
    manifest = json.loads(next((folder / "export").glob("*/manifest.json")).read_text())
    assert manifest["device"]["board"]["address"] == f"adb:{board.serial}"


def test_a_full_disk_and_a_refused_key_are_one_line_each(
    server: StandIn, board: StandInBoard, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    board.free_bytes = 1000
    assert main(words) == 2
    assert "no room for" in (error := capsys.readouterr().err)
    assert "folder=/PATH" in error
    board.state = "unauthorized"
    assert main(words) == 2
    assert "has not allowed this computer: unlock it and accept its key there" in (
        error := capsys.readouterr().err
    )
    assert "Traceback" not in error


def test_two_runs_on_one_board_take_turns(
    server: StandIn, board: StandInBoard, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/tmp/trilobit-board.lock", "a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.truncate(0)
        held.write(json.dumps({"user": "somebody", "host": "pc-7", "pid": 7, "since": "noon"}))
        held.flush()
        told: list[str] = []

        def tell(text: str) -> None:
            told.append(text)
            fcntl.flock(held, fcntl.LOCK_UN)

        monkeypatch.setattr("hw_profiles.runtimes.transports.boards._on_standard_error", tell)
        assert main(words) == 0
    assert told[0] == f"adb:{board.serial}: waiting: somebody@pc-7 (process 7) measures on it since noon"
