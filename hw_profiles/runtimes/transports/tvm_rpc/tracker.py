"""TVM's tracker, as it is asked over its own protocol: which boards are there, and one of them for us.

`tvm.rpc.TrackerSession` waits for a minute where nothing listens, and forever for a board that nobody has.
"""

import contextlib
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tvm.rpc import base

from hw_profiles.errors import TrilobitError

ANSWER_S = 5.0  # a tracker answers at once, or it is none
POLL_S = 2.0  # how often a caller that waits for a board looks whether there still is one


@dataclass(frozen=True)
class Offer:
    """A board that waits for us. It takes itself back when it is not connected to within some seconds.

    Attributes:
        host, port: where its server listens: this names the board.
        matchkey: what the server expects to hear.
    """

    host: str
    port: int
    matchkey: str

    @property
    def name(self) -> str:
        """The board, for people."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Tracker:
    """Where a tracker listens."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """As `parse_tracker` reads it."""
        return f"{self.host}:{self.port}"

    def boards(self) -> dict[str, int]:
        """Return how many boards are registered, by key.

        Raises:
            TrilobitError: no tracker answers.
        """
        with self._connection() as connection:
            return self._boards(connection)

    def count(self, key: str) -> int:
        """Return how many boards of that key are registered.

        Raises:
            TrilobitError: none, or no tracker answers.
        """
        return self._counted(self.boards(), key)

    def request(self, key: str, wait_s: float) -> Offer:
        """Return a board of that key, as soon as one is free.

        Raises:
            TrilobitError: there is none (any more), none became free in time, or no tracker answers.
        """
        deadline = time.monotonic() + wait_s
        with self._connection() as connection:
            self._counted(self._boards(connection), key)
            base.sendjson(connection, [base.TrackerCode.REQUEST, key, "", 1])
            while not select.select([connection], [], [], POLL_S)[0]:
                number = self.count(key)
                if time.monotonic() > deadline:
                    raise TrilobitError(
                        f"none of the {number} boards of key {key!r} at the tracker {self.name} became free "
                        f"in {wait_s:.0f} s: others use them, or they hang and must be restarted"
                    )
            _, (host, port, matchkey) = base.recvjson(connection)
            return Offer(host, int(port), matchkey)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        """Open a connection and greet; whatever goes wrong is said in our words."""
        try:
            with socket.create_connection((self.host, self.port), ANSWER_S) as connection:
                connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
                if struct.unpack("<i", base.recvall(connection, 4))[0] != base.RPC_TRACKER_MAGIC:
                    raise OSError("what listens there is no tracker")
                yield connection
        except (OSError, ValueError) as error:  # ValueError: no JSON
            raise TrilobitError(
                f"no TVM tracker answers at {self.name} ({error}); start one with: python -m "
                f"tvm.exec.rpc_tracker --host=0.0.0.0 --port={self.port} --port-end={self.port + 1}"
            ) from None

    def _boards(self, connection: socket.socket) -> dict[str, int]:
        base.sendjson(connection, [base.TrackerCode.SUMMARY])
        answer: Any = base.recvjson(connection)
        servers = (server["key"].removeprefix("server:") for server in answer[1]["server_info"])
        return dict(Counter(servers))

    def _counted(self, boards: dict[str, int], key: str) -> int:
        if key not in boards:
            served = (
                ", ".join(f"{served_as} ({number})" for served_as, number in sorted(boards.items())) or "none"
            )
            raise TrilobitError(
                f"no board serves the key {key!r} at the tracker {self.name}; keys served: {served}. Start "
                f"one on the board: python -m tvm.exec.rpc_server --tracker={self.name} --key={key} "
                "--port=9090 --port-end=9099"
            )
        return boards[key]


def parse_tracker(text: str) -> Tracker:
    """Return a tracker from `HOST:PORT`.

    Raises:
        TrilobitError: it is not written like that.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise TrilobitError(f"a tracker is written HOST:PORT, for example 192.168.1.10:9190, got {text!r}")
    return Tracker(host, int(port))
