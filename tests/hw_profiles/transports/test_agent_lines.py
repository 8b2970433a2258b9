"""What comes from a board is text of a stranger: whatever it is, it is an answer or one line."""

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.runtime import Artifact
from hw_profiles.runtimes.transports.addressed import arrays_in, named_arrays
from hw_profiles.runtimes.transports.agent.messages import AgentError as AgentSays
from hw_profiles.runtimes.transports.agent.messages import Reader, parse
from hw_profiles.runtimes.transports.agent_client import read_line
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.launch import PythonAgent
from tests.hw_profiles.transports.pipes import Pipe, device

PLAN = MeasurePlan(rounds=2, waiting_s=0.0)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LINES = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())


@given(LINES)
def test_a_line_is_an_object_or_no_line(line: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(read_line(line)["say"], str)


@pytest.mark.parametrize(
    "line",
    [b"[" * 100_000, b'{"say": NaN}', b'{"say": "at", "share": Infinity}', b"\xff\xfe", b"{}", b'"at"', b""],
)
def test_these_are_no_lines(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_line(line)


@given(LINES)
def test_an_agent_reads_a_request_or_refuses(line: bytes) -> None:
    with contextlib.suppress(AgentSays):
        assert isinstance(parse(line), dict)


@given(st.lists(st.binary(max_size=20), max_size=5), st.integers(1, 7), st.data())
def test_an_agent_reads_lines_and_bytes_in_any_pieces(parts: list[bytes], size: int, data: Any) -> None:
    lines = [part.replace(b"\n", b"") for part in parts]
    stream = b"".join(line + b"\n" for line in lines)
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    reader = Reader(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "hw_profiles.runtimes.transports.agent.messages.os.read",
            lambda *_: pieces.pop(0) if pieces else b"",
        )
        for line in lines:
            if data.draw(st.booleans()):
                assert reader.line() == line
            else:
                taken = b""
                while len(taken) <= len(line):
                    taken += reader.some(len(line) + 1 - len(taken))
                assert taken == line + b"\n"
        assert reader.line() is None
        assert reader.some(1) == b""


@given(
    st.dictionaries(st.text(max_size=8), st.integers(0, 3), max_size=4),
    st.sampled_from(["f4", "i8", "u1", "?"]),
)
def test_arrays_keep_names_that_no_file_has(sizes: dict[str, int], dtype: str) -> None:
    arrays = {name: np.ones((size, 2), dtype) for name, size in sizes.items()}
    first, again = named_arrays(arrays), named_arrays(arrays)
    assert first == again  # one name for one content


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"x" * 100])
def test_what_is_no_file_of_arrays(content: bytes) -> None:
    with pytest.raises(ValueError, match="no arrays"):
        arrays_in(content, ("y",))


# -- agents that do not behave, in place of ours ----------------------------------------------------------

HELLO = """
import hashlib, json, os, sys
size, sha256 = int(sys.argv[4]), sys.argv[5]
left = size
while left:
    left -= len(os.read(0, left))
def say(**line):
    print(json.dumps(line), flush=True)
facts = {"system": "Linux", "machine": "riscv64", "cpu": "toy", "cores": 2}
def hello():
    say(say="hello", protocol=1, agent=sha256, facts=facts)
def requests():
    for line in sys.stdin:
        yield json.loads(line)
"""
ENGINE = 'say(say="done", version="1.31.1", packages={}, providers=[])'


def behaving(answers: str) -> str:
    """A program that is an agent, and answers some requests by statements."""
    return (
        HELLO
        + "hello()\nfor request in requests():\n    do = request['do']\n"
        + "".join(f"    {line}\n" for line in answers.splitlines())
    )


def said_of(program: str, ask: Callable[[Boards], object], *, hang_s: float = 5.0) -> str:
    boards = Boards([Pipe(instead=program)], PythonAgent((sys.executable,), hang_s=hang_s))
    try:
        with pytest.raises(TrilobitError) as caught:
            ask(boards)
    finally:
        boards.close()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("pipe:here")
    return str(caught.value)


def sampled(boards: Boards) -> object:
    board = device(boards)
    return board.transport.sample(board.runtime, [Artifact(b"a"), Artifact(b"b")], ["one", "one"], PLAN)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import sys; sys.exit(3)", "was lost (exit code 3)"),
        ("import sys; sys.exit('it is broken')", "was lost (it is broken)"),
        ("for _ in range(300): print('noise', flush=True)", "what answers there is no agent"),
        (HELLO + "sha256 = '0'; hello(); input()", "another agent answers there"),
        (HELLO + "facts = 3; hello(); input()", "its agent answers nonsense"),
        (HELLO + "facts['cores'] = 'many'; hello(); input()", "its agent answers nonsense (cores"),
        ("import time; time.sleep(100)", "no word from it for 1 s"),
    ],
)
def test_what_does_not_say_hello(program: str, expected: str) -> None:
    assert expected in said_of(program, lambda boards: boards.facts, hang_s=1.0)


PUT = "left = sum(f['size'] for f in request.get('files', []))\n"
SAMPLES = """
if do == 'engine': {engine}
elif do == 'has': say(say='done', has=[True] * len(request['sha256']))
else: {answer}
"""


@pytest.mark.parametrize(
    "answer",
    [
        "say(say='done')",
        "say(say='done', samples=[], conditions={})",
        "say(say='done', samples=[{}, {}], conditions={})",
        "say(say='done', samples=[{'seconds': [1.0]}, {'seconds': [1.0, 2.0]}], conditions={})",
        "say(say='done', samples=[{'seconds': [-1.0]}, {'seconds': [1.0]}], conditions={})",
        "say(say='done', samples=[{'seconds': ['1']}, {'error': 3}], conditions={})",
        "say(say='done', samples=[{'seconds': [1.0]}, {'seconds': [1.0]}], conditions=[])",
        "print('NaN', flush=True)",
        "print('[' * 100000, flush=True)",
        "print('\\\\xff', flush=True)",
        "sys.stdout.buffer.write(bytes(range(256)) * 10 + b'\\n'); sys.stdout.flush()",
        "say(say='at', index='3'); say(say='error', kind='lost', message='gone')",
        "say(say='error', kind={}, message=[1, '\\n'])",
        "sys.exit(1)",
    ],
)
def test_nonsense_in_an_answer_is_one_line(answer: str) -> None:
    said_of(behaving(SAMPLES.format(engine=ENGINE, answer=answer)), sampled)


def test_an_agent_that_hangs_is_lost() -> None:
    program = behaving(SAMPLES.format(engine=ENGINE, answer="import time; time.sleep(100)"))
    assert "no word from it for 1 s" in said_of(program, sampled, hang_s=1.0)


def test_an_agent_that_takes_nothing_is_lost() -> None:
    program = behaving(
        SAMPLES.format(engine=ENGINE, answer="0")
        .replace("[True]", "[False]")
        .replace("else: 0", "elif do == 'put': import time; time.sleep(100)")
    )

    def large(boards: Boards) -> object:
        board = device(boards)
        return board.transport.sample(board.runtime, [Artifact(bytes(2**22))], [None], PLAN)

    assert "took nothing for" in said_of(program, large, hang_s=1.0)


def test_an_agent_that_talks_all_the_time_lives() -> None:
    waits = "for _ in range(8): import time; time.sleep(0.25); say(say='at', share=0.5)"
    answer = "say(say='done', samples=[{'seconds': [1.0]}, {'seconds': [2.0]}], conditions={})"
    program = behaving(SAMPLES.format(engine=ENGINE, answer="exec(later)"))
    program = f"later = '''{waits}\n{answer}'''\n" + program
    boards = Boards([Pipe(instead=program)], PythonAgent((sys.executable,), hang_s=1.5))
    one, other = sampled(boards)  # type: ignore[misc]
    boards.close()
    assert (one.median_s, other.median_s) == (1.0, 2.0)


@settings(max_examples=15, deadline=None)
@given(st.lists(LINES, max_size=4))
def test_any_answers_are_samples_or_one_line(lines: list[bytes]) -> None:
    raw = b"".join(line.replace(b"\n", b" ") + b"\n" for line in lines)
    answer = f"sys.stdout.buffer.write({raw!r}); sys.stdout.flush(); sys.exit(0)"
    said_of(behaving(SAMPLES.format(engine=ENGINE, answer=answer)), sampled)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x"])
def test_a_hash_is_no_path(path: str, tmp_path: Path) -> None:
    from hw_profiles.runtimes.transports.agent.store import Store

    with pytest.raises(AgentSays, match="no SHA-256"):
        Store(str(tmp_path), 100).path(path)
