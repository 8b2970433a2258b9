"""A stand-in for adb's server and the boards behind it, for the real adb client: what the services `shell`
and `sync` do happens in a folder of this machine.

https://android.googlesource.com/platform/packages/modules/adb/+/refs/heads/main/OVERVIEW.TXT, SERVICES.TXT
and SYNC.TXT have the protocol; `shell,v2` is in shell_protocol.h.
"""

import contextlib
import os
import shutil
import signal
import socket
import socketserver
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hw_profiles.runtimes.transports.adb import PROGRAM

VERSION = 41  # of the server: a client of another version would end it and start its own
FOLDER = "/data/local/tmp"  # what `root` of a board is called there
FEATURES = "shell_v2,cmd"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)  # packets of `shell,v2`
CHUNK = 1 << 16
ADVICE = """
This adb server's $ADB_VENDOR_KEYS is not set
Try 'adb kill-server' if that seems wrong.
Otherwise check for a confirmation dialog on your device."""
# what a board without Python has: toybox's commands that are needed
TOOLS = ("sh", "cat", "chmod", "cut", "df", "ls", "mkdir", "mv", "nproc", "rm", "sha256sum", "test", "uname")


@dataclass
class StandInBoard:
    """A board that is plugged in.

    Attributes:
        root: its `/data/local/tmp`.
        serial: its name.
        state: `device`, `unauthorized` or `offline`.
        path: where it looks for programs.
        free_bytes: what may still be written by `push`; None for any number.
        commands: what its shell was given.
        sent: files that were pushed, in order.
    """

    root: Path
    serial: str = "board-1"
    state: str = "device"
    path: str = os.environ["PATH"]
    free_bytes: int | None = None
    commands: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    sockets: set[socket.socket] = field(default_factory=set)
    processes: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def here(self, text: str) -> str:
        """Return a path, or a command with paths, as this machine has them."""
        return text.replace(FOLDER, str(self.root))

    def stop(self) -> None:
        """End everything on it, as pulling its plug does."""
        for connection in list(self.sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for process in list(self.processes):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


class StandIn(socketserver.ThreadingTCPServer):
    """adb's server.

    Args:
        boards: those that are plugged in.
    """

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, *boards: StandInBoard) -> None:
        super().__init__(("localhost", 0), _Connection)
        self.boards = list(boards)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead the real client here, whatever another test has in its place."""
        return {"ADB_SERVER_SOCKET": f"tcp:localhost:{self.server_address[1]}", PROGRAM: "adb"}

    def board(self, serial: str) -> StandInBoard | None:
        """Return a board by its name."""
        return next((board for board in self.boards if board.serial == serial), None)

    def unplug(self, board: StandInBoard) -> None:
        """Pull a board's plug."""
        self.boards.remove(board)
        board.stop()


@contextlib.contextmanager
def serving(*boards: StandInBoard) -> Iterator[StandIn]:
    """Serve boards; afterwards nothing of them runs any more."""
    with StandIn(*boards) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            for board in boards:
                board.stop()
            server.shutdown()
            thread.join()


def folder_of_tools(folder: Path, tools: Sequence[str] = TOOLS) -> str:
    """Return a PATH of these programs only, as links in a new folder."""
    folder.mkdir()
    for tool in tools:
        if program := shutil.which(tool):
            (folder / tool).symlink_to(program)
    return str(folder)


def adb_program(folder: Path) -> str:
    """Return a program that does on this machine what adb does on a device."""
    path = folder / "adb"
    path.write_text('#!/bin/sh\ncase $3 in shell) exec sh -c "$5";; push) cp "$4" "$5";; esac\n')
    path.chmod(0o700)
    return str(path)


class Refused(Exception):  # noqa: N818 - what happened
    """What is answered with FAIL."""


class _Connection(socketserver.BaseRequestHandler):
    """One connection of a client: some services of the server, or one of a board."""

    request: socket.socket
    server: StandIn
    chosen: StandInBoard | None = None

    def handle(self) -> None:
        """Answer services until one has used the connection up."""
        try:
            while self._serve(self._text()):
                pass
        except (Refused, FileNotFoundError) as error:
            with contextlib.suppress(OSError):
                self._send(b"FAIL" + _counted(str(error)))
        except (ConnectionError, OSError):
            pass  # the client went, or the board
        finally:
            if self.chosen:
                self.chosen.sockets.discard(self.request)

    def _serve(self, service: str) -> bool:
        """Answer one service; returns whether another one may follow."""
        scope, _, name = service.partition(":")
        if scope == "host-serial":
            *serial, name = name.rsplit(":", 1)
            self._choose(":".join(serial))
            scope = "host"
        if scope == "host":
            return self._of_server(name)
        if self.chosen is None:
            raise Refused("no board was chosen")
        self._send(b"OKAY")
        if scope.partition(",")[0] == "shell":
            _Shell(self.request, self.chosen, framed="v2" in scope.split(",")).run(name)
        elif scope == "sync":
            _Sync(self.request, self.chosen).run()
        return False

    def _of_server(self, name: str) -> bool:
        kind, _, serial = name.partition(":")
        if kind in ("transport", "tport"):
            self._choose(serial.removeprefix("serial:"))
            self._send(b"OKAY" + (struct.pack("<Q", 1) if kind == "tport" else b""))
            return True
        if kind in ("transport-any", "transport-usb", "transport-local"):
            self._choose(self.server.boards[0].serial if self.server.boards else "")
            self._send(b"OKAY")
            return True
        answers = {
            "version": f"{VERSION:04x}",
            "devices": "".join(f"{board.serial}\t{board.state}\n" for board in self.server.boards),
            "devices-l": "".join(f"{board.serial} {board.state} usb:1\n" for board in self.server.boards),
            "features": FEATURES,
            "host-features": FEATURES,
            "get-state": self.chosen.state if self.chosen else "unknown",
        }
        if kind not in answers:
            raise Refused(f"unknown host service {kind!r}")
        self._send(b"OKAY" + _counted(answers[kind]))
        return False

    def _choose(self, serial: str) -> None:
        board = self.server.board(serial)
        if board is None:
            raise Refused(f"device '{serial}' not found")
        if board.state != "device":
            raise Refused(f"device {board.state}{'.' + ADVICE if board.state == 'unauthorized' else ''}")
        self.chosen = board
        board.sockets.add(self.request)

    def _text(self) -> str:
        return _exactly(self.request, int(_exactly(self.request, 4), 16)).decode()

    def _send(self, data: bytes) -> None:
        self.request.sendall(data)


@dataclass
class _Shell:
    """A command, with its streams as packets (`shell,v2`) or as they are."""

    connection: socket.socket
    board: StandInBoard
    framed: bool
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, command: str) -> None:
        """Run it to its end, or until the client goes."""
        self.board.commands.append(command)
        process = subprocess.Popen(
            ["/bin/sh", "-c", self.board.here(command)],
            cwd=self.board.root,
            env={"PATH": self.board.path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self.framed else subprocess.STDOUT,
            start_new_session=True,
        )
        self.board.processes.add(process)
        assert process.stdout
        streams = [(STDOUT, process.stdout), *([(STDERR, process.stderr)] if process.stderr else [])]
        pumps = [threading.Thread(target=self._pump, args=stream) for stream in streams]
        reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        with process:
            for thread in (*pumps, reader):
                thread.start()
            for thread in pumps:
                thread.join()
            code = process.wait()
        self.board.processes.discard(process)
        with contextlib.suppress(OSError):
            if self.framed:
                self._packet(EXIT, bytes([code % 256]))
            self.connection.shutdown(socket.SHUT_RDWR)
        reader.join()

    def _pump(self, kind: int, stream: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(stream.fileno(), CHUNK):  # type: ignore[attr-defined]
                self._packet(kind, data)

    def _packet(self, kind: int, data: bytes) -> None:
        with self.lock:
            self.connection.sendall((struct.pack("<BI", kind, len(data)) if self.framed else b"") + data)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Give what the client sends to the command, whose input ends when the client goes."""
        assert process.stdin
        with contextlib.suppress(OSError, ValueError):
            while True:
                kind, data = self._received()
                if kind == STDIN:
                    process.stdin.write(data)
                    process.stdin.flush()
                if kind == CLOSE_STDIN or not (self.framed or data):
                    break
        with contextlib.suppress(OSError, ValueError):
            process.stdin.close()

    def _received(self) -> tuple[int, bytes]:
        if not self.framed:
            return STDIN, self.connection.recv(CHUNK)
        kind, size = struct.unpack("<BI", _exactly(self.connection, 5))
        return kind, _exactly(self.connection, size)


@dataclass
class _Sync:
    """Files, to and from the board."""

    connection: socket.socket
    board: StandInBoard

    def run(self) -> None:
        """Answer until the client has enough."""
        answers = {b"STAT": self._stat, b"LIST": self._list, b"SEND": self._receive, b"RECV": self._send}
        while True:
            kind, size = self._head()
            if kind == b"QUIT":
                return
            name = _exactly(self.connection, size).decode()
            try:
                answers[kind](name)
            except (Refused, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                text = (reason or str(error)).encode()
                self.connection.sendall(struct.pack("<4sI", b"FAIL", len(text)) + text)

    def _head(self) -> tuple[bytes, int]:
        kind, size = struct.unpack("<4sI", _exactly(self.connection, 8))
        return kind, size

    def _path(self, name: str) -> Path:
        return Path(self.board.here(name))

    def _stat(self, name: str) -> None:
        fields = (0, 0, 0)
        with contextlib.suppress(OSError):
            status = self._path(name).lstat()
            fields = status.st_mode, status.st_size, int(status.st_mtime)
        self.connection.sendall(struct.pack("<4sIII", b"STAT", *fields))

    def _list(self, name: str) -> None:
        with contextlib.suppress(OSError):
            for path in self._path(name).iterdir():
                status, text = path.lstat(), path.name.encode()
                facts = status.st_mode, status.st_size, int(status.st_mtime), len(text)
                self.connection.sendall(struct.pack("<4sIIII", b"DENT", *facts) + text)
        self.connection.sendall(struct.pack("<4sIIII", b"DONE", 0, 0, 0, 0))

    def _receive(self, name: str) -> None:
        """Take a file from the client, which is heard to its end whatever happens to it."""
        name, _, mode = name.rpartition(",")
        path, content = self._path(name), bytearray()
        while (head := self._head())[0] == b"DATA":
            content += _exactly(self.connection, head[1])
        if self.board.free_bytes is not None:
            self.board.free_bytes -= len(content)
            if self.board.free_bytes < 0:
                self.board.free_bytes = 0
                raise Refused("couldn't create file: No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(int(mode) & 0o777)
        self.board.sent.append(path.name)
        self.connection.sendall(struct.pack("<4sI", b"OKAY", 0))

    def _send(self, name: str) -> None:
        content = self._path(name).read_bytes()
        for start in range(0, len(content), CHUNK):
            part = content[start : start + CHUNK]
            self.connection.sendall(struct.pack("<4sI", b"DATA", len(part)) + part)
        self.connection.sendall(struct.pack("<4sI", b"DONE", 0))


def _counted(text: str) -> bytes:
    return f"{len(text.encode()):04x}{text}".encode()


def _exactly(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes of a stream.

    Raises:
        ConnectionError: it ends before.
    """
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the client went")
        data += part
    return bytes(data)
