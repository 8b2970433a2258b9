"""Lines of JSON: what a client says and what it is told (docs/concepts/boards.md)."""

from __future__ import annotations

import json
import os
from typing import Any

PROTOCOL = 1
LONGEST = 64 * 2**20  # bytes of a line
CHUNK = 2**18


class AgentError(Exception):
    """Something is wrong that the client has to know.

    Attributes:
        kind: `engine`, `artifact`, `disk`, `request` or `lost`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def one_line(error: BaseException) -> str:
    """Return an error as a row of a table holds it."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else "no message"
    return first if isinstance(error, AgentError) else f"{type(error).__name__}: {first}"


class Writer:
    """Writes lines to a file descriptor, each in one piece."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def say(self, what: str, **fields: Any) -> None:
        """Write one line.

        Raises:
            OSError: nobody reads any more.
        """
        line = json.dumps(dict(fields, say=what), allow_nan=False).encode() + b"\n"
        view = memoryview(line)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def error(self, kind: str, message: str, **fields: Any) -> None:
        """Write why a request is not answered."""
        self.say("error", kind=kind, message=message, **fields)


class Reader:
    """Reads lines and bytes from a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._buffer = bytearray()

    def line(self) -> bytes | None:
        """Return the next line; None where there is no more.

        Raises:
            AgentError: it is longer than any that means something.
        """
        while b"\n" not in self._buffer:
            if len(self._buffer) > LONGEST:
                raise AgentError("request", "a line of more than %d bytes" % LONGEST)
            if not self._more():
                return None
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line)

    def some(self, most: int) -> bytes:
        """Return from 1 to `most` bytes; none where there are no more."""
        if not self._buffer and not self._more():
            return b""
        part = bytes(self._buffer[:most])
        del self._buffer[:most]
        return part

    def _more(self) -> bool:
        part = os.read(self.descriptor, CHUNK)
        self._buffer += part
        return bool(part)

    @property
    def waiting(self) -> bool:
        """Whether a whole line was read already."""
        return b"\n" in self._buffer


def parse(line: bytes) -> dict[str, Any]:
    """Return the object of a line.

    Raises:
        AgentError: it is none.
    """
    try:
        document = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise AgentError("request", "a line that is no JSON") from None
    if not isinstance(document, dict):
        raise AgentError("request", "a line that is no object")
    return document
