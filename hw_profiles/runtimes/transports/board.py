"""What a way of reaching boards is: it starts a program there and takes files there. Everything else is the
agent's business, which is the same for all of them.
"""

import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import LostError


class BoardLost(LostError):  # noqa: N818 - what happened, not what is wrong
    """A board does not answer, or not as it should. What was asked of it can be asked of another one.

    Attributes:
        again: whether it may answer when it is asked once more.
    """

    def __init__(self, message: str, *, again: bool = True) -> None:
        super().__init__(message)
        self.again = again


class Board(Protocol):
    """One board, and how it is reached: by a program of this machine, as its user set that up."""

    @property
    def name(self) -> str:
        """It, for people, such as `ssh:pi@10.0.0.5`; no two boards share one."""
        ...

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Run a command there, its arguments as they are, and return the process here that speaks for it: its
        input, output and error are pipes without a buffer, in a process group of its own. When that is
        killed, the input of the command there ends.

        Raises:
            TrilobitError: the program that reaches boards is missing here.
        """
        ...

    def failure(self, returncode: int, said: str) -> BoardLost:
        """Return why a command ended that should not have.

        Args:
            returncode: of the process here.
            said: on its error output.
        """
        ...


@runtime_checkable
class TakesFiles(Protocol):
    """A board with a way of its own for files; others are sent them through a command there."""

    def copy(self, content: bytes, path: str) -> None:
        """Write a file there that its user may run.

        Raises:
            BoardLost: it does not answer, or has no room for it.
        """
        ...


def start_program(
    variable: str, program: str, arguments: Sequence[str], *, install: str
) -> subprocess.Popen[bytes]:
    """Start what reaches boards, as `Board.start` says.

    Args:
        variable: of the environment, which may name another command.
        program: where it does not.
        install: what to do where it is missing.

    Raises:
        TrilobitError: it is missing here.
    """
    command = shlex.split(os.environ.get(variable, "")) or [program]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            [*command, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        )
    except OSError as error:
        raise TrilobitError(f"cannot run {command[0]} ({error.strerror}): {install}") from None
