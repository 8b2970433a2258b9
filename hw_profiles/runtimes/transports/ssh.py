"""Boards over ssh, reached by the `ssh` program of this machine as its user has configured it: keys, names of
hosts, jumps. No password goes through us, and no check of host keys is switched off.
"""

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.runtimes.transports.board import BoardLost, start_program
from hw_profiles.runtimes.transports.board_kind import Reached, scheme_kind

PROGRAM = "TRILOBIT_SSH"  # environment variable: another command, such as `ssh -F FILE`
CONNECT_S, ALIVE_S, ALIVE_COUNT = 15, 15, 4
UNASKED = (  # nothing may wait for somebody who types
    *("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"),
    *("-o", f"ServerAliveInterval={ALIVE_S}", "-o", f"ServerAliveCountMax={ALIVE_COUNT}"),
)
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
OWN_FAILURE = 255  # what ssh itself ends with
# what ssh says -> what that means for people, and whether trying again may help
_MEANINGS: Mapping[str, tuple[str, bool]] = {
    "permission denied": (
        "refused the key; let `{login}` work without a password first (ssh-copy-id)",
        False,
    ),
    "too many authentication": (
        "refused the keys; name the right one in ~/.ssh/config (IdentityFile)",
        False,
    ),
    "identification has changed": (
        "has another host key than before: if you know why, remove the old one (ssh-keygen -R)",
        False,
    ),
    "host key verification failed": (
        "has a host key that is not known here: connect once by hand and compare it: {login}",
        False,
    ),
    "could not resolve": ("is no host that is known here: is its name right?", False),
    "name or service not known": ("is no host that is known here: is its name right?", False),
    "bad configuration": ("cannot be reached with this ssh configuration", False),
    "connection refused": ("cannot be reached: is it on, and does sshd listen there? Try: {login}", True),
    "timed out": ("cannot be reached: is it on, and is its address right? Try: {login}", True),
    "no route to host": ("cannot be reached: is it on, and is its address right? Try: {login}", True),
    "network is unreachable": ("cannot be reached: is there a network? Try: {login}", True),
}


@dataclass(frozen=True)
class SshBoard:
    """A board.

    Attributes:
        host: its name for `ssh`, which may be one of the user's configuration.
        user: there; empty as the configuration says.
        port: None as the configuration says.
    """

    host: str
    user: str = ""
    port: int | None = None

    @property
    def name(self) -> str:
        """As it is written."""
        user, port = (f"{self.user}@" if self.user else ""), (f":{self.port}" if self.port else "")
        return f"ssh:{user}{self.host}{port}"

    @property
    def _destination(self) -> list[str]:
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        return [*port, *user, "--", self.host.strip("[]")]

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Run a command there, every argument quoted for its shell.

        Raises:
            TrilobitError: there is no ssh here.
        """
        arguments = [*UNASKED, *self._destination, shlex.join(command)]
        return start_program(PROGRAM, "ssh", arguments, install="install an ssh client (openssh-client)")

    def failure(self, returncode: int, said: str) -> BoardLost:
        """Return what ssh said, in words of what to do."""
        lines = [line for line in said.splitlines() if line.strip()]
        last = lines[-1][:200] if lines else f"exit code {returncode}"
        if returncode == OWN_FAILURE:
            whole = said.lower()
            for text, (meaning, again) in _MEANINGS.items():
                if text in whole:
                    login = " ".join(["ssh", *self._destination]).replace(" --", "")
                    return BoardLost(f"{self.name} {meaning.format(login=login)} ({last})", again=again)
        return BoardLost(f"{self.name} was lost ({last})")


def ssh_board(address: str) -> SshBoard:
    """Return the board of `USER@HOST:PORT`, of which only HOST must be there.

    Raises:
        TrilobitError: it is not written like that.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"] or 22) < 1 << 16:
        raise TrilobitError(f"a board is written ssh:USER@HOST:PORT/RUNTIME, got {shown(address)}")
    return SshBoard(match["host"], match["user"] or "", int(match["port"]) if match["port"] else None)


SSH = scheme_kind(
    Reached("ssh", ssh_board),
    summary="boards over ssh, through a runtime there",
    metavar="USER@HOST[:PORT]/RUNTIME",
)
