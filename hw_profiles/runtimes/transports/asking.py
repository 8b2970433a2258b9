"""What is asked of every board, and what is said of those that cannot."""

import getpass
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hw_profiles.runtimes.transports.agent_client import AgentClient, Line, Refused
from hw_profiles.runtimes.transports.board import BoardLost
from hw_profiles.runtimes.transports.boards import Boards


class Needed(Protocol):
    """A runtime that must be on a board."""

    @property
    def engine(self) -> Mapping[str, Any]:
        """What an agent opens its files with: `name` and `options`."""
        ...

    @property
    def package(self) -> str:
        """What brings it, for pip."""
        ...

    @property
    def oldest(self) -> tuple[int, ...]:
        """Version that opens all files which are written here."""
        ...


@dataclass(frozen=True)
class EngineThere:
    """What an agent says of its runtime.

    Attributes:
        version: of it.
        packages: versions by name, its own with it.
        providers: what else it can run files on.
        capabilities: what that computes in, by the engine's own words.
        energy: where joules of its runs come from, or why there are none.
    """

    version: str
    packages: Mapping[str, str]
    providers: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    energy: str = "not measured"


def require(client: AgentClient, needed: Needed) -> EngineThere:
    """Return what a board says of a runtime, which must be there in a version that opens our files.

    Raises:
        BoardLost: it is not.
    """
    name, key = client.board.name, str(needed.engine)
    if key in client.ready:
        known: EngineThere = client.ready[key]
        return known
    oldest = ".".join(map(str, needed.oldest))
    python = client.facts.executable or "python3"
    remedy = f"install it there: {python} -m pip install '{needed.package}>={oldest}' numpy"
    try:
        engine = client.read(EngineThere, client.request("engine", engine=needed.engine))
    except Refused as refused:
        if refused.kind != "engine":
            raise unable(client, refused) from None
        hint = f"; {remedy}" if "not installed" in str(refused) else ""
        raise BoardLost(f"{name}: {needed.package}: {refused}{hint}", again=False) from None
    if _numbers(engine.version) < needed.oldest:
        raise BoardLost(
            f"{name} has {needed.package} {engine.version}, and our files need {oldest} or later; {remedy}",
            again=False,
        )
    client.ready[key] = engine
    return engine


def unable(client: AgentClient, refused: Refused) -> BoardLost:
    """Return that a board cannot do what it was asked for, and what to do about that."""
    remedies = {
        "disk": "; make room there, name another folder (folder=/PATH), or change what is kept (cache_mb=N)",
        "missing": "; the files of one measurement do not fit there together: let more be kept (cache_mb=N)",
    }
    lost = refused.kind == "lost"
    return BoardLost(f"{client.board.name}: {refused}{remedies.get(refused.kind, '')}", again=lost)


def telling(boards: Boards, client: AgentClient) -> Callable[[Line], None]:
    """Return what tells people, once for each, who else measures on a board: there are many turns."""
    told = set[tuple[str, ...]]()

    def tell(line: Line) -> None:
        holder = line.get("waits_for")
        if not isinstance(holder, Mapping):
            return
        if not holder:
            return  # it is just being given on
        words = [" ".join(str(holder.get(key, "?")).split())[:60] for key in ("user", "host", "pid", "since")]
        who = tuple(words[:-1])
        if who not in told:
            told.add(who)
            text = "{}@{} (process {}) measures on it since {}".format(*words)
            boards.tell(f"{client.board.name}: waiting: {text}")

    return tell


def whoever() -> dict[str, Any]:
    """Return who measures, for others that wait."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = str(os.getuid())
    return {"user": user, "host": platform.node(), "pid": os.getpid()}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
