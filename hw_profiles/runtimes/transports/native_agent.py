"""How the agent in C gets to a board: as a file, which takes itself away when it ends."""

import json
import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.transports.agent_client import AgentClient, AgentGone, Refused, sha256_of
from hw_profiles.runtimes.transports.board import Board, BoardLost, TakesFiles

# a login may greet before
ASK = 'echo; echo "trilobit $(uname -m) $HOME"'
WRITE = 'mkdir -p "$1" && cat > "$2" && chmod 700 "$2" || { rm -f "$2"; exit 1; }'
USUAL = ".cache/trilobit/board"  # below the user's own folder
CANNOT_RUN = (126, 127)  # exit codes of shells


@dataclass(frozen=True)
class NativeAgent:
    """The agent in C.

    Attributes:
        program: from an instruction set, as `uname -m` calls it, to the agent for it.
        folder: where files are kept on the board, and the agent while it runs; empty for one below the user's
            own folder there.
        cache_bytes: that they may take.
        hang_s: how long a board may say nothing.
    """

    program: Callable[[str], bytes]
    folder: str = ""
    cache_bytes: int = 2**29
    hang_s: float = 120.0

    def __call__(self, board: Board) -> AgentClient:
        """Start it.

        Raises:
            BoardLost: the board does not answer, has no room, or does not run it.
            TrilobitError: there is no agent for it.
        """
        machine, home = self._asked(board)
        folder = self.folder or f"{home.rstrip('/')}/{USUAL}"
        content = self.program(machine)
        digest = sha256_of(content)
        path = f"{folder}/agent-{digest[:12]}-{secrets.token_hex(4)}"
        self._carry(board, content, folder, path)
        options = {"folder": f"{folder}/files", "cache_bytes": self.cache_bytes, "brought": True}
        process = board.start([path, json.dumps(options)])
        try:
            return AgentClient(board, process, hang_s=self.hang_s, agent=digest)
        except AgentGone as gone:
            raise self._not_run(board, path, gone) from None
        except Refused as error:
            raise BoardLost(f"{board.name}: {error}", again=False) from None

    def _asked(self, board: Board) -> tuple[str, str]:
        """Return the board's instruction set, and its user's own folder."""
        for line in self._said(board, ["sh", "-c", ASK]).splitlines():
            said, _, rest = line.strip().partition(" ")
            machine, _, home = rest.partition(" ")
            if said == "trilobit" and machine:
                return machine, home
        raise BoardLost(f"{board.name}: its shell does not say what kind of board it is", again=False)

    def _carry(self, board: Board, content: bytes, folder: str, path: str) -> None:
        if isinstance(board, TakesFiles):
            self._said(board, ["mkdir", "-p", folder])
            board.copy(content, path)
        else:
            self._said(board, ["sh", "-c", WRITE, "sh", folder, path], content)

    def _not_run(self, board: Board, path: str, gone: AgentGone) -> TrilobitError:
        reason = board.failure(gone.returncode, gone.said)
        if gone.returncode not in CANNOT_RUN:
            return reason
        self._said(board, ["rm", "-f", path])
        return BoardLost(
            f"{board.name} does not run programs in {self.folder or USUAL}: name another folder there: "
            f"folder=/PATH ({reason})",
            again=False,
        )

    def _said(self, board: Board, command: Sequence[str], data: bytes = b"") -> str:
        """Return what a command on a board says.

        Raises:
            BoardLost: it fails, or takes too long.
        """
        process = board.start(command)
        try:
            output, error = process.communicate(data, self.hang_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise BoardLost(f"{board.name}: no word from it for {self.hang_s:g} s") from None
        if process.returncode:
            said = error.decode(errors="replace")
            if "No space left" in said:
                raise BoardLost(
                    f"{board.name}: no room there ({said.strip().splitlines()[-1]}); make room, or name "
                    "another folder: folder=/PATH",
                    again=False,
                )
            raise board.failure(process.returncode, said)
        return output.decode(errors="replace")
