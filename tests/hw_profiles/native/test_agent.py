"""The agent in C: its protocol, libraries that do not behave, and what it says of boards that are made up."""

import base64
import fcntl
import io
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.transports.addressed import arrays_in, named_arrays
from hw_profiles.runtimes.transports.agent.conditions import Board
from hw_profiles.runtimes.transports.agent_client import AgentClient, Refused, sha256_of
from tests.hw_profiles.native.made_up import (
    CODE,
    CRASH,
    DOUBLE,
    ENDLESS,
    FOREIGN,
    asked,
    library,
    started,
)

PLAN = asdict(MeasurePlan(rounds=3, waiting_s=0.0, energy_s=0.0))


@pytest.fixture
def client(agent: Path, tmp_path: Path) -> Iterator[AgentClient]:
    talking = started(agent, tmp_path)
    yield talking
    talking.close()


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return library(tmp_path_factory.mktemp("double"), DOUBLE)


def run(client: AgentClient, content: bytes, array: np.ndarray) -> np.ndarray:
    sha256, packed = named_arrays({"image": array})
    client.put({sha256_of(content): content, sha256: packed})
    answer = client.request("run", artifact=asked(content), inputs=sha256)
    return arrays_in(base64.b64decode(answer["npz"]), tuple(answer["names"]))["output"]


def test_a_library_says_what_it_is_and_computes_each_example(client: AgentClient, double: bytes) -> None:
    client.put({sha256_of(double): double})
    described = client.request("describe", artifact=asked(double))
    assert described["inputs"] == [{"name": "image", "shape": [None, 4], "dtype": "float32"}]
    assert json.loads(base64.b64decode(client.request("kernels", artifact=asked(double))["graph"]))[
        "layers"
    ] == ["double", "double"]
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(run(client, double, array), 2 * array)
    assert client.request("time", artifact=asked(double), count=10, clock="wall", who={})["seconds"] > 0
    assert client.request("engine", engine=asked(double)["engine"])["version"] == "1"


def test_what_cannot_run_is_a_row_with_its_reason_and_the_rest_is_measured(
    client: AgentClient, double: bytes, tmp_path: Path
) -> None:
    other = bytearray(double)
    other[18] ^= 0xFF  # the machine that it is for
    bad = [
        library(tmp_path, CRASH),
        library(tmp_path, FOREIGN),
        library(tmp_path, CODE),
        bytes(other),
        b"no library",
    ]
    files = [double, *bad, double]
    client.put({sha256_of(content): content for content in files})
    lines: list[dict[str, Any]] = []
    answer = client.request(
        "sample",
        artifacts=[asked(each) for each in files],
        contexts=[0, *[None] * 5, 0],
        plan=PLAN,
        who={},
        on_line=lines.append,
    )
    first, *middle, last = answer["samples"]
    reasons = [each["error"] for each in middle]
    for reason, expected in zip(
        reasons,
        ("ended the process that ran it", "it needs sinhf", "code 3", "another processor", "no shared"),
        strict=True,
    ):
        assert expected in reason
    assert len(first["seconds"]) == len(last["seconds"]) >= 3
    assert min(first["seconds"] + last["seconds"]) > 0
    assert [line["index"] for line in lines if "index" in line] == list(range(7))
    conditions = answer["conditions"]
    assert conditions["pinned"] is True
    assert conditions["core"] == Board().best_core()


def test_a_library_reads_the_example_that_it_is_given(client: AgentClient, tmp_path: Path) -> None:
    content = library(tmp_path, CODE)
    sha256, packed = named_arrays({"image": np.full((1, 4), 7, np.float32)})
    client.put({sha256_of(content): content, sha256: packed})
    answer = client.request("sample", artifacts=[asked(content, sha256)], contexts=[None], plan=PLAN, who={})
    assert answer["samples"][0]["seconds"]


def test_what_ends_the_process_that_runs_it_ends_nothing_else(
    client: AgentClient, double: bytes, tmp_path: Path
) -> None:
    array = np.ones((1, 4), np.float32)
    with pytest.raises(Refused, match="ended the process that ran it: Illegal instruction") as refused:
        run(client, library(tmp_path, CRASH), array)
    assert refused.value.kind == "lost"
    np.testing.assert_array_equal(run(client, double, array), 2 * array)


def test_files_are_kept_by_their_hash_while_there_is_room(agent: Path, double: bytes, tmp_path: Path) -> None:
    client = started(agent, tmp_path, cache_bytes=30_000)
    client.put({sha256_of(content): content for content in (double, b"a" * 9_000)})
    client.forget()
    time.sleep(0.02)  # the system's own clock of files moves on every few ms
    assert client.request("has", sha256=[sha256_of(double), "0" * 64, "../lock"])["has"] == [
        True,
        False,
        False,
    ]
    client.put({sha256_of(b"b" * 20_000): b"b" * 20_000})  # what was not used for longest goes
    assert client.request("has", sha256=[sha256_of(b"a" * 9_000)])["has"] == [False]
    with pytest.raises(Refused, match=r"no room for 0.1 MB in .*files") as full:
        client.put({sha256_of(b"c" * 99_000): b"c" * 99_000})
    assert full.value.kind == "disk"
    with pytest.raises(Refused, match="what came is not the file") as other:
        client.request("put", files=[{"sha256": sha256_of(b"x"), "size": 1}], payload=[b"y"])
    assert other.value.kind == "request"
    (tmp_path / "files" / sha256_of(double)).write_bytes(b"changed")
    with pytest.raises(Refused, match="is not there") as missing:
        client.request("describe", artifact=asked(double))
    assert missing.value.kind == "missing"
    assert not list((tmp_path / "files").glob("*.part"))
    client.close()


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b'{"do": 7}',
        b'{"do": "run"}',
        b'{"do": "trial"}',
        b'{"do": "sample"}',
        b"[" * 999,
        b'{"do": "sample", "artifacts": [{}], "plan": {"rounds": 0}}',
        b'{"do": "time", "artifact": {"sha256": 7}}',
        b'{"do": "describe", "artifact": {"sha256": "../../etc/passwd"}}',
        b'{"do": "run", "artifact": "\\ud800"}',
    ],
)
def test_nonsense_is_refused_and_the_agent_goes_on(agent: Path, tmp_path: Path, line: bytes) -> None:
    options = json.dumps({"folder": str(tmp_path), "lock": str(tmp_path / "lock")})
    pipe = subprocess.PIPE
    with subprocess.Popen([agent, options], stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        said = [json.loads(process.stdout.readline())]
        for each in (line, b'{"do": "end"}'):
            process.stdin.write(each + b"\n")
            said.append(json.loads(process.stdout.readline()))
    assert [each["say"] for each in said] == ["hello", "error", "done"]
    assert said[1]["kind"] in ("request", "missing")
    assert process.returncode == 0


def test_when_its_input_ends_it_ends_whatever_it_does_and_takes_itself_away(
    agent: Path, tmp_path: Path
) -> None:
    own = tmp_path / "agent-copy"
    own.write_bytes(agent.read_bytes())
    own.chmod(0o700)
    client = started(own, tmp_path, brought=True)
    content = library(tmp_path, ENDLESS)
    client.put({sha256_of(content): content})
    begun = threading.Event()

    def measure() -> None:
        with pytest.raises(Exception, match="was lost"):
            client.request(
                "sample",
                artifacts=[asked(content)],
                contexts=[None],
                plan=PLAN,
                who={},
                on_line=lambda line: begun.set(),
            )

    thread = threading.Thread(target=measure)
    thread.start()
    assert begun.wait(60)
    assert own.exists()
    client.close()
    thread.join(60)
    for _ in range(600):
        if not own.exists() and not running(own):
            break
        time.sleep(0.05)
    assert not own.exists()
    assert not running(own)


def running(path: Path) -> list[str]:
    links = (os.readlink(link) for link in Path("/proc").glob("[0-9]*/exe") if os.access(link, os.R_OK))
    return [link for link in links if link.startswith(str(path))]


@pytest.mark.parametrize("do", ["time", "run"])
def test_who_comes_second_waits_and_hears_for_whom(
    client: AgentClient, double: bytes, tmp_path: Path, do: str
) -> None:
    sha256, packed = named_arrays({"image": np.ones((1, 4), np.float32)})
    client.put({sha256_of(double): double, sha256: packed})
    fields = {"time": {"count": 1, "clock": "thread"}, "run": {"inputs": sha256}}[do]
    with open(tmp_path / "lock", "w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(json.dumps({"user": "somebody", "pid": 7}))
        lock.flush()
        heard: list[dict[str, Any]] = []

        def hear(line: dict[str, Any]) -> None:
            heard.append(line)
            fcntl.flock(lock, fcntl.LOCK_UN)

        who = {"user": "me", "host": "pc", "pid": 8}
        client.request(do, artifact=asked(double), who=who, on_line=hear, **fields)
    assert heard[0]["waits_for"] == {"user": "somebody", "pid": 7}
    assert json.loads((tmp_path / "lock").read_text())["user"] == "me"


def files(root: Path, **contents: object) -> None:
    for name, content in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def made_up_board(root: Path, *, celsius: int) -> None:
    for core in os.sched_getaffinity(0):
        about = {
            "scaling_governor": "performance",
            "cpuinfo_max_freq": 1_800_000,
            "scaling_cur_freq": 1_800_000,
        }
        for name, content in about.items():
            files(root, **{f"sys__devices__system__cpu__cpu{core}__cpufreq__{name}": content})
    zone = "sys__class__thermal__thermal_zone0"
    files(root, **{f"{zone}__type": "cpu-thermal", f"{zone}__temp": 1000 * celsius})
    files(root, **{f"{zone}__trip_point_0_type": "passive", f"{zone}__trip_point_0_temp": 80_000})
    files(
        root, proc__cpuinfo="model name : Made up\nflags : asimd asimddp", proc__meminfo="MemTotal: 1024 kB"
    )


@pytest.mark.parametrize("celsius", [45, 80])
def test_it_says_of_a_board_what_the_agent_in_python_does(
    agent: Path, double: bytes, tmp_path: Path, celsius: int
) -> None:
    made_up_board(tmp_path, celsius=celsius)
    client = started(agent, tmp_path, root=str(tmp_path))
    theirs = Board(str(tmp_path)).facts()
    same = ("system", "machine", "cpu", "cores", "governor", "max_frequency_hz")
    assert {name: getattr(client.facts, name) for name in same} == {name: theirs[name] for name in same}
    assert sorted(client.facts.flags) == theirs["flags"]
    client.put({sha256_of(double): double})
    plan = {**PLAN, "waiting_s": 0.6}
    answer = client.request("sample", artifacts=[asked(double)], contexts=[None], plan=plan, who={})
    conditions = answer["conditions"]
    assert conditions["governor"] == "performance"
    assert conditions["frequency_hz"] == [1.8e9, 1.8e9]
    assert conditions["temperature_c"] == [celsius, celsius]
    assert (conditions["throttled_s"] >= 0.5) == (celsius == 80)
    client.close()


@pytest.mark.parametrize("source", ["counter", "sensor"])
def test_joules_of_a_run(agent: Path, double: bytes, tmp_path: Path, source: str) -> None:
    """Two watts: of a sensor, or of a counter that a thread moves on."""
    sensor, counter = "sys__class__hwmon__hwmon0", "sys__class__powercap__intel-rapl:0"
    stopped, path = threading.Event(), tmp_path / counter.replace("__", "/") / "energy_uj"
    if source == "sensor":
        files(
            tmp_path,
            **{f"{sensor}__name": "ina219", f"{sensor}__in1_input": 5000, f"{sensor}__curr1_input": 400},
        )
    else:
        files(tmp_path, **{f"{counter}__name": "package-0", f"{counter}__max_energy_range_uj": 10**9})
        files(tmp_path, **{f"{counter}__energy_uj": 0})

    def move() -> None:
        begun = time.monotonic()
        while source == "counter" and not stopped.wait(0.001):
            text = path.with_suffix(".new")
            text.write_text(f"{int(2e6 * (time.monotonic() - begun))}\n")
            text.replace(path)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        client = started(agent, tmp_path, root=str(tmp_path))
        client.put({sha256_of(double): double})
        plan = {**PLAN, "clock": "thread", "energy_s": 0.05}
        answer = client.request("sample", artifacts=[asked(double)], contexts=[None], plan=plan, who={})
    finally:
        stopped.set()
        thread.join()
    names = {
        "sensor": "INA sensors: all that ina219 hwmon0 channel 1 drew",
        "counter": "powercap: all that package-0 used",
    }
    engine = client.request("engine", engine=asked(double)["engine"])
    assert engine["energy"] == f"{names[source]} while it ran"
    [sample] = answer["samples"]
    # runs take at least as long by the wall as the core worked
    assert sample["energy_j"] > 2 * 0.5 * min(sample["seconds"])
    client.close()


def test_without_a_meter_there_is_a_reason(agent: Path, double: bytes, tmp_path: Path) -> None:
    client = started(agent, tmp_path, root=str(tmp_path))
    engine = client.request("engine", engine=asked(double)["engine"])
    assert engine["energy"] == "no powercap counters; no INA sensor below /sys/class/hwmon"
    client.close()


def test_arrays_of_numpy_s_own_making_are_read(client: AgentClient, double: bytes, tmp_path: Path) -> None:
    """Whatever stands before them in the file; what is compressed is refused."""
    array = np.arange(4, dtype=np.float32)[None]
    for save, works in ((np.savez, True), (np.savez_compressed, False)):
        file = io.BytesIO()
        save(file, names=np.array(["image"]), array_0=array, array_1=array)
        content = file.getvalue()
        client.put({sha256_of(double): double, sha256_of(content): content})
        if works:
            assert client.request("run", artifact=asked(double), inputs=sha256_of(content))["names"] == [
                "output"
            ]
        else:
            with pytest.raises(Refused, match="not what it reads"):
                client.request("run", artifact=asked(double), inputs=sha256_of(content))
