"""This side of the conversation with an agent: requests out, lines of JSON in (docs/concepts/boards.md).

What comes from a board is read as text of a stranger. A board that says nothing for too long is taken as
hung, and the connection to it is ended.
"""

import contextlib
import hashlib
import json
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.transports.board import Board, BoardLost

PROTOCOL = 1
LONGEST = 64 * 2**20  # bytes of a line
NOISE = 200  # lines that a login may print before the agent says hello
SAID, KEPT, MOST = 200, 20, 2**16  # characters that errors quote; lines and characters that are kept
FAREWELL_S = 2.0  # for the agent to take away what it made
Line = dict[str, Any]
T = TypeVar("T")


class AgentGone(Exception):  # noqa: N818 - what happened, not what is wrong
    """The process that spoke for the agent ended.

    Attributes:
        returncode: of it.
        said: on its error output.
    """

    def __init__(self, returncode: int, said: str) -> None:
        super().__init__(said)
        self.returncode, self.said = returncode, said


class Refused(TrilobitError):  # noqa: N818 - what happened, not what is wrong
    """The agent answered that it cannot do what it was asked for.

    Attributes:
        kind: `artifact`, `disk`, `engine`, `lost`, `missing` or `request`.
        last: the last progress that it told before.
    """

    def __init__(self, kind: str, message: str, last: Line) -> None:
        super().__init__(message)
        self.kind, self.last = kind, last


@dataclass(frozen=True)
class BoardFacts:
    """What an agent says of its board when it begins.

    Attributes:
        system: operating system and its version.
        machine: instruction set.
        cpu: processor model.
        cores: that the agent may use.
        python, executable: version and place of what runs it; empty where it is no Python.
        governor: what decides how fast its core runs; None where nothing says so.
        max_frequency_hz: of its fastest core; None where nothing says so.
        memory_bytes: None where nothing says so.
        flags: of the processor, as its system lists them.
    """

    system: str
    machine: str
    cpu: str
    cores: int
    python: str = ""
    executable: str = ""
    governor: str | None = None
    max_frequency_hz: int | None = None
    memory_bytes: int | None = None
    flags: tuple[str, ...] = ()


def sha256_of(content: bytes) -> str:
    """Return the name that a file has on boards."""
    return hashlib.sha256(content).hexdigest()


def read_line(line: bytes) -> Line:
    """Return what an agent said in one line.

    Raises:
        ValueError: no object with a `say`.
    """
    try:
        document = json.loads(line.decode("utf-8"), parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict) or not isinstance(document.get("say"), str):
        raise ValueError("no object that says anything")
    return document


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


class AgentClient:
    """A conversation with an agent that was started.

    Args:
        board: whose it is.
        process: that speaks for it.
        hang_s: how long it may say nothing.
        agent: the hash of what should run there.
        first: what it reads before anything else.

    Attributes:
        facts: about the board.
        ready: what was made sure of there, by whoever did that.

    Raises:
        AgentGone: it ended before it said hello.
        BoardLost: it says nothing, or is another one.
    """

    def __init__(
        self,
        board: Board,
        process: subprocess.Popen[bytes],
        *,
        hang_s: float,
        agent: str,
        first: bytes = b"",
    ) -> None:
        self.board, self._process, self._hang_s = board, process, hang_s
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._said: deque[str] = deque(maxlen=KEPT)
        self._there: set[str] = set()
        self.ready: dict[str, Any] = {}
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._input = process.stdin
        self._listeners = [
            _started(_listen, process.stdout, self._lines),
            _started(_overhear, process.stderr, self._said),
        ]
        try:
            self._send(first)
            self.facts = self._greeted(agent)
        except BaseException:
            self.kill()
            raise

    def _greeted(self, agent: str) -> BoardFacts:
        for _ in range(NOISE):
            line = self._next()
            with contextlib.suppress(ValueError):
                hello = read_line(line)
                if hello["say"] == "error":
                    raise self._refusal(hello, {})
                if hello["say"] == "hello":
                    if (hello.get("protocol"), hello.get("agent")) != (PROTOCOL, agent):
                        raise BoardLost(f"{self.board.name}: another agent answers there", again=False)
                    return self.read(BoardFacts, hello.get("facts"))
        raise BoardLost(f"{self.board.name}: what answers there is no agent", again=False)

    @property
    def alive(self) -> bool:
        """Whether the process that speaks for it still runs."""
        return self._process.poll() is None

    def request(
        self,
        do: str,
        *,
        payload: Iterable[bytes] = (),
        on_line: Callable[[Line], None] = lambda line: None,
        **fields: Any,
    ) -> Line:
        """Return the answer to a request.

        Args:
            payload: bytes that follow it.
            on_line: told everything that the agent says meanwhile.
            fields: of the request.

        Raises:
            Refused: it says that it cannot.
            BoardLost: it is gone, says nothing for too long, or something else than an agent does.
        """
        try:
            self._send(json.dumps({"do": do, **fields}, allow_nan=False).encode() + b"\n")
            for part in payload:
                self._send(part)
            return self._answer(on_line)
        except AgentGone as gone:
            self.kill()
            raise self.board.failure(gone.returncode, gone.said) from None
        except Refused:
            raise
        except BaseException:  # whoever asks next must not read the answer to this
            self.kill()
            raise

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Take files there, by their hashes: those that it does not have, in one stream.

        Raises:
            Refused: it has no room for them.
            BoardLost: see `request`.
        """
        new = [sha256 for sha256 in contents if sha256 not in self._there]
        if not new:
            return
        present = self.read(tuple[bool, ...], self.request("has", sha256=new).get("has"))
        lacking = [sha256 for sha256, has in zip(new, present, strict=False) if not has]
        if lacking:
            files = [{"sha256": sha256, "size": len(contents[sha256])} for sha256 in lacking]
            self.request("put", files=files, payload=(contents[sha256] for sha256 in lacking))
        self._there.update(new)

    def forget(self) -> None:
        """Ask again which files are there: some were taken away."""
        self._there.clear()

    def close(self) -> None:
        """Say good-bye; the agent takes away what it made."""
        with contextlib.suppress(OSError):
            self._input.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL_S)
        self.kill()

    def kill(self) -> None:
        """End the connection."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for listener in self._listeners:
            listener.join(FAREWELL_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def read(self, kind: type[T], data: Any) -> T:
        """Return a part of an answer as what it should be.

        Raises:
            BoardLost: it is something else.
        """
        try:
            return parse(kind, data)
        except MismatchError as error:
            self.kill()
            raise BoardLost(f"{self.board.name}: its agent answers nonsense ({error})", again=False) from None

    def _answer(self, on_line: Callable[[Line], None]) -> Line:
        last: Line = {}
        while True:
            raw = self._next()
            try:
                line = read_line(raw)
            except ValueError as error:
                raise BoardLost(f"{self.board.name}: its agent answers nonsense ({error})") from None
            if line["say"] == "done":
                return line
            if line["say"] == "error":
                raise self._refusal(line, last)
            last = line
            on_line(line)

    def _refusal(self, line: Line, last: Line) -> Refused:
        text = " ".join(str(line.get("message")).split())[:SAID]
        return Refused(str(line.get("kind")), text, last)

    def _next(self) -> bytes:
        try:
            line = self._lines.get(timeout=self._hang_s)
        except queue.Empty:
            raise BoardLost(f"{self.board.name}: no word from it for {self._hang_s:g} s") from None
        if line is None:
            self._process.wait()
            for listener in self._listeners:
                listener.join(FAREWELL_S)
            raise AgentGone(self._process.returncode, "\n".join(self._said))
        return line

    def _send(self, data: bytes) -> None:
        """Write all of it; a board that takes nothing for too long is taken as hung.

        Raises:
            AgentGone, BoardLost: it is gone, or hung.
        """
        view, descriptor = memoryview(data), self._input.fileno()
        os.set_blocking(descriptor, False)
        last = time.monotonic()
        while view:
            if not select.select([], [descriptor], [], self._hang_s)[1]:
                raise BoardLost(f"{self.board.name}: took nothing for {time.monotonic() - last:.0f} s")
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                continue
            except OSError:  # the process ended; what it said is read as an answer would be
                while True:
                    self._next()
            last = time.monotonic()


def _started(target: Callable[..., None], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _listen(stream: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    """Hand on whole lines; a longer one than any that means something ends the conversation."""
    buffer = bytearray()
    with contextlib.suppress(OSError, ValueError):
        while (part := os.read(stream.fileno(), 2**18)) and len(buffer) <= LONGEST:
            buffer += part
            if b"\n" in part:
                *whole, rest = bytes(buffer).split(b"\n")
                buffer = bytearray(rest)
                for line in whole:
                    lines.put(line)
    lines.put(None)


def _overhear(stream: IO[bytes], said: deque[str]) -> None:
    """Keep the last lines of what a board says on its error output, for errors."""
    with contextlib.suppress(OSError, ValueError):
        rest = ""
        while part := os.read(stream.fileno(), 2**14):
            rest = (rest + part.decode(errors="replace"))[-MOST:]
            *whole, rest = rest.splitlines(keepends=True)
            said.extend(line.strip() for line in whole if line.strip())
        if rest.strip():
            said.append(rest.strip())
