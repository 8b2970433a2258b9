"""How an agent gets to a board and begins to run."""

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.transports.agent_client import AgentClient, AgentGone, Refused, sha256_of
from hw_profiles.runtimes.transports.board import Board, BoardLost

Launch = Callable[[Board], AgentClient]  # raises BoardLost where that cannot be
PACKAGE = "hw_profiles.runtimes.transports.agent"
ENERGY = "hw_profiles.measure.energy"  # what it measures joules with, as this machine does
# Where Python is on boards whose accounts have a short PATH.
PYTHONS = ("python3", "/usr/bin/python3", "/usr/local/bin/python3", "/opt/bin/python3")
NOT_FOUND = (126, 127)  # exit codes of shells
OLDER = "older than 3.8"
# Reads the agent from its input, checks it and runs it from memory: nothing of it is on the board's disk.
BOOT = f"""
import sys
if sys.version_info < (3, 8):
    sys.exit("trilobit: Python %d.%d is {OLDER}" % sys.version_info[:2])
import hashlib, importlib.abc, importlib.util, json, os, zlib
size, sha256, options = int(sys.argv[1]), sys.argv[2], sys.argv[3]
packed = b""
while len(packed) < size:
    part = os.read(0, size - len(packed))
    if not part:
        sys.exit(1)
    packed += part
if hashlib.sha256(packed).hexdigest() != sha256:
    sys.exit("trilobit: the agent was damaged on its way")
sources = json.loads(zlib.decompress(packed).decode())
class Sources(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in sources:
            package = any(other.startswith(name + ".") for other in sources)
            return importlib.util.spec_from_loader(name, self, is_package=package)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        name = module.__name__
        exec(compile(sources[name], "agent:" + name, "exec"), module.__dict__)
sys.meta_path.insert(0, Sources())
from {PACKAGE}.supervisor import main
sys.exit(main(options))
"""


@cache
def packed_agent() -> bytes:
    """Return the agent as one file: the sources of its modules by their names, the same bytes every time."""
    root, sources = Path(__file__).parents[2], dict[str, str]()
    for package in (PACKAGE, ENERGY):
        parents = package.split(".")
        folder = root.joinpath(*parents[1:])
        sources |= {".".join(parents[:depth]): "" for depth in range(1, len(parents))}
        sources[package] = (folder / "__init__.py").read_text()
        sources |= {f"{package}.{path.stem}": path.read_text() for path in sorted(folder.glob("[a-z]*.py"))}
    return zlib.compress(json.dumps(sources, sort_keys=True).encode(), 9)


@dataclass(frozen=True)
class PythonAgent:
    """The agent in Python, through `start` alone: it is read from the standard input, and no file there.

    Attributes:
        pythons: interpreters to try, the first that is there.
        folder: where files are kept on the board; empty for the user's cache folder there.
        cache_bytes: that they may take; 0 keeps none.
        hang_s: how long a board may say nothing.
        lock: file that is locked while something is timed; empty for that which all users of a board lock.
    """

    pythons: Sequence[str] = PYTHONS
    folder: str = ""
    cache_bytes: int = 2**29
    hang_s: float = 120.0
    lock: str = ""

    def __call__(self, board: Board) -> AgentClient:
        """Start it.

        Raises:
            BoardLost: the board does not answer, has no Python that is new enough, or no room.
        """
        for python in self.pythons:
            try:
                return self._started(board, python)
            except AgentGone as gone:
                if gone.returncode not in NOT_FOUND:
                    raise _reason(board, python, gone) from None
        tried = ", ".join(self.pythons)
        raise BoardLost(
            f"{board.name} has no Python ({tried}): install Python 3.8 or later there, or say where it is: "
            "python=/PATH/TO/python3",
            again=False,
        )

    def _started(self, board: Board, python: str) -> AgentClient:
        packed = packed_agent()
        digest = sha256_of(packed)
        boot = base64.b64encode(BOOT.encode()).decode()  # one line without any character that shells know
        command = [python, "-c", f"import base64;exec(base64.b64decode('{boot}').decode())"]
        process = board.start([*command, str(len(packed)), digest, json.dumps(self._options(digest))])
        try:
            return AgentClient(board, process, hang_s=self.hang_s, agent=digest, first=packed)
        except Refused as error:
            raise BoardLost(f"{board.name}: {error}{_remedy(error)}", again=False) from None

    def _options(self, digest: str) -> Mapping[str, Any]:
        options = {"folder": self.folder, "lock": self.lock}
        return {"agent": digest, "cache_bytes": self.cache_bytes, **{k: v for k, v in options.items() if v}}


def _remedy(error: TrilobitError) -> str:
    full = isinstance(error, Refused) and error.kind == "disk"
    return "; make room there, or name another folder: folder=/PATH" if full else ""


def _reason(board: Board, python: str, gone: AgentGone) -> BoardLost:
    """Return why an agent did not start: what our own first lines said, else what reaches the board says."""
    last = gone.said.strip().splitlines()[-1] if gone.said.strip() else ""
    if last.startswith("trilobit: ") and OLDER in last:
        newer = "install a newer one there, or say where it is: python=/PATH/TO/python3"
        return BoardLost(f"{board.name}: {python} is {last[len('trilobit: ') :]}; {newer}", again=False)
    return board.failure(gone.returncode, gone.said)
