"""The agent: takes requests and files on standard input, answers on standard output, and lets a worker
process do what may crash. When its input ends it ends, whatever is going on, and takes away what it made.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from hw_profiles.runtimes.transports.agent.conditions import Board
from hw_profiles.runtimes.transports.agent.lock import usual_lock
from hw_profiles.runtimes.transports.agent.messages import (
    PROTOCOL,
    AgentError,
    Reader,
    Writer,
    one_line,
    parse,
)
from hw_profiles.runtimes.transports.agent.store import FULL, Store, usual_folder

IDLE_S = 1800.0  # without a request: a client that was cut off does not say good-bye
SESSION = "session-"
UNLIMITED = 2**62
SETTLING_S = 5.0  # between an answer and being ready again


class Child:
    """The worker process.

    Args:
        work: what the worker is made of.
        close: descriptors that are none of its business.

    Attributes:
        busy: whether it has a request that it has not answered.
    """

    def __init__(self, writer: Writer, work: Mapping[str, Any], close: Sequence[int]) -> None:
        requests, self._requests = os.pipe()
        self.alive, answered = os.pipe()
        self.busy = False
        self.pid = os.fork()
        if self.pid == 0:
            for descriptor in (self._requests, self.alive, *close):
                os.close(descriptor)
            _work(writer, work, requests, answered)
        os.close(requests)
        os.close(answered)

    def ask(self, line: bytes) -> None:
        """Pass a request on."""
        self.busy = True
        view = memoryview(line + b"\n")
        with contextlib.suppress(OSError):  # it is dead, which is noticed in a moment
            while view:
                view = view[os.write(self._requests, view) :]

    def note(self) -> int | None:
        """Read that it answered: None; or return what ended it."""
        if os.read(self.alive, 1):
            self.busy = False
            return None
        return self.end()

    def end(self) -> int:
        """End it, and return the signal that it was ended by, or 0."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._requests)
        os.close(self.alive)
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _work(writer: Writer, work: Mapping[str, Any], requests: int, answered: int) -> None:
    """Be the worker, made with the arguments `work`; never returns."""
    try:
        _die_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            from hw_profiles.runtimes.transports.agent import worker  # numpy: only where something is run
        except ImportError as error:
            message = f"numpy: not installed ({error})"
            reader = Reader(requests)
            while reader.line() is not None:
                writer.error("engine", message)
                os.write(answered, b".")
            os._exit(0)
        own = worker.Worker(writer, **work)
        worker.serve(Reader(requests), own, writer, functools.partial(os.write, answered, worker.ANSWERED))
    except BaseException as error:  # it must not fall through to what its parent does
        sys.stderr.write(f"worker: {one_line(error)}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _die_with_parent() -> None:
    """Ask Linux to end this process where its parent is killed, who could not do it."""
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Supervisor:
    """Answers what needs no engine, and passes the rest on.

    Args:
        options: `agent` (the hash of this program), `cache_bytes`, and where they are not the usual ones
            `folder`, `lock`, `idle_s`, `learning_s`.
    """

    def __init__(self, options: Mapping[str, Any], reader: Reader, writer: Writer) -> None:
        self._reader, self._writer, self._options = reader, writer, options
        folder = options.get("folder") or usual_folder()
        limit_bytes = int(options["cache_bytes"])
        self._store = Store(folder, limit_bytes)
        _sweep(folder)
        self._scratch = tempfile.mkdtemp(prefix="%s%d-" % (SESSION, os.getpid()), dir=folder)
        if not limit_bytes:  # nothing stays
            self._store = Store(self._scratch, UNLIMITED)
        self._work = {
            "store": self._store,
            "scratch": self._scratch,
            "lock": options.get("lock") or usual_lock(folder),
        }
        if "learning_s" in options:
            self._work["learning_s"] = float(options["learning_s"])
        self._child = None  # type: Child | None

    def serve(self) -> None:
        """Answer requests until there are no more."""
        self._writer.say("hello", protocol=PROTOCOL, agent=self._options.get("agent"), facts=Board().facts())
        try:
            while self._turn():
                pass
        except (EOFError, OSError):  # the client is gone
            pass
        finally:
            if self._child:
                self._child.end()
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _turn(self) -> bool:
        """Wait for what comes next and see to it; return whether to go on."""
        child = self._child
        sources = [self._reader.descriptor, *([child.alive] if child else [])]
        idle_s = None if child and child.busy else float(self._options.get("idle_s", IDLE_S))
        ready = (
            [self._reader.descriptor] if self._reader.waiting else select.select(sources, [], [], idle_s)[0]
        )
        if not ready:
            return False
        if child and child.alive in ready:
            self._noted(child)
            return True
        return self._request()

    def _request(self) -> bool:
        """Read a request, and answer it or pass it on."""
        line = self._reader.line()
        if line is None:
            return False
        try:
            request = parse(line)
            self._settle()
            what = request.get("do")
            if what == "put":
                self._put(request)
            elif what == "has":
                self._writer.say("done", has=[self._store.has(sha256) for sha256 in request["sha256"]])
            elif what == "end":
                self._writer.say("done")
                return False
            else:
                self._pass_on(line)
        except AgentError as error:
            self._writer.error(error.kind, one_line(error))
        except (KeyError, TypeError, ValueError) as error:
            self._writer.error("request", one_line(error))
        return True

    def _settle(self) -> None:
        """Wait for the worker, which may have answered a moment ago, to be ready for the next request.

        Raises:
            AgentError: it has not answered.
        """
        child = self._child
        while child and child.busy:
            if not select.select([child.alive], [], [], SETTLING_S)[0]:
                raise AgentError("request", "one request at a time")
            self._noted(child)
            child = self._child

    def _noted(self, child: Child) -> None:
        """Note that the worker answered, or died."""
        signalled = child.note()
        if signalled is not None:
            self._child = None
            if child.busy:
                self._writer.error("lost", _ended(signalled), signal=signalled)

    def _put(self, request: Mapping[str, Any]) -> None:
        """Keep the files that follow a request; all of them are read whatever becomes of them."""
        problem = None  # type: AgentError | None
        for file in request["files"]:
            try:
                self._store.receive(file["sha256"], int(file["size"]), self._reader.some)
            except AgentError as error:
                problem = problem or error
        if problem:
            raise problem
        self._writer.say("done")

    def _pass_on(self, line: bytes) -> None:
        if self._child is None:
            close = [self._reader.descriptor]
            self._child = Child(self._writer, self._work, close)
        self._child.ask(line)


def _ended(number: int) -> str:
    if not number:
        return "the process that ran it gave up"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "signal %d" % number
    return f"ended the process that ran it: {name}"


def _sweep(folder: str) -> None:
    """Remove what sessions left that were killed."""
    for name in os.listdir(folder):
        pid = name[len(SESSION) :].partition("-")[0] if name.startswith(SESSION) else ""
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(text: str) -> int:
    """Be the agent.

    Args:
        text: its options as JSON.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.dup(1)  # what engines print must not stand between answers
    os.dup2(2, 1)
    writer = Writer(answers)
    try:
        supervisor = Supervisor(json.loads(text), Reader(0), writer)
    except AgentError as error:
        writer.error(error.kind, one_line(error))
        return 1
    except OSError as error:
        kind = "disk" if error.errno in FULL else "request"
        writer.error(kind, f"cannot work there ({error.strerror})")
        return 1
    supervisor.serve()
    return 0
