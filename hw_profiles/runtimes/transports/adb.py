"""Android boards and phones over adb, reached by the `adb` program of this machine: its server, its keys."""

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.runtimes.transports.board import BoardLost, start_program
from hw_profiles.runtimes.transports.board_kind import BoardOptions, Reached, launched, scheme_kind
from hw_profiles.runtimes.transports.launch import Launch, PythonAgent

PROGRAM = "TRILOBIT_ADB"  # environment variable: another command, such as `adb -P 5038`
ANSWER_S = 10.0  # what adb may take to say which devices there are
COPY_S = 600.0
FOLDER = "/data/local/tmp/trilobit"  # the one place where adb's user may write and run files
PYTHONS = ("python3", "/data/data/com.termux/files/usr/bin/python3")
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")
# what adb says -> what that means for people, and whether trying again may help
_MEANINGS: Mapping[str, tuple[str, bool]] = {
    "unauthorized": (
        "has not allowed this computer: unlock it and accept its key there, then try again",
        False,
    ),
    "still authorizing": ("has not allowed this computer yet: unlock it and accept its key there", False),
    "offline": ("is offline: plug it in again, or `adb reconnect offline`", True),
    "no devices": ("is not there: plug it in and switch on USB debugging there", True),
    "not found": ("is not there", True),
    "cannot connect to daemon": (
        "cannot be reached: adb's server does not start; try `adb start-server`",
        True,
    ),
    "no permissions": ("may not be used by you: see `adb devices` and its udev rules", False),
}
_OWN = re.compile(r"^(?:adb: )?error: (.*)|^(adb: .*)|^\* (failed .*)", re.MULTILINE)  # lines of adb itself


@dataclass(frozen=True)
class AdbOptions(BoardOptions):
    """What can be chosen of a device behind adb.

    Attributes:
        folder: where files are kept there; adb's user may write and run them in few places.
    """

    folder: str = FOLDER


@dataclass(frozen=True)
class AdbBoard:
    """A device.

    Attributes:
        serial: as `adb devices` lists it.
    """

    serial: str

    @property
    def name(self) -> str:
        """As it is written."""
        return f"adb:{self.serial}"

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Run a command there, every argument quoted for its shell.

        Raises:
            TrilobitError: there is no adb here.
        """
        return self._adb("shell", "-T", shlex.join(command))

    def copy(self, content: bytes, path: str) -> None:
        """Write a file there that adb's user may run.

        Raises:
            BoardLost: the device does not answer, or has no room for it.
        """
        with tempfile.TemporaryDirectory(prefix="trilobit-") as folder:
            file = Path(folder) / "file"
            file.write_bytes(content)
            file.chmod(0o700)
            process = self._adb("push", str(file), path)
            try:
                output, error = process.communicate(timeout=COPY_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                raise BoardLost(f"{self.name}: took no file for {COPY_S:.0f} s") from None
        said = (output + error).decode(errors="replace")
        if process.returncode and "No space left" in said:
            raise BoardLost(
                f"{self.name}: no room for {len(content) / 1e6:.1f} MB in {os.path.dirname(path)}; make "
                "room, or name another folder: folder=/PATH",
                again=False,
            )
        if process.returncode:
            raise self.failure(process.returncode, said)

    def failure(self, returncode: int, said: str) -> BoardLost:
        """Return what adb said, in words of what to do."""
        own = [next(filter(None, match.groups())) for match in _OWN.finditer(said)]
        for line in own:
            for text, (meaning, again) in _MEANINGS.items():
                if text in line.lower():
                    return BoardLost(
                        f"{self.name} {meaning}{self._others()} ({line.strip()[:200]})", again=again
                    )
        lines = [line for line in said.splitlines() if line.strip()]
        # adb ends with 0 where the device went away meanwhile
        last = (own or lines or [f"exit code {returncode}" if returncode else "its connection ended"])[-1]
        return BoardLost(f"{self.name} was lost ({last.strip()[:200]})")

    def _others(self) -> str:
        """Return which devices there are, where adb can say so."""
        try:
            output, _ = self._adb("devices", of_device=False).communicate(timeout=ANSWER_S)
        except (TrilobitError, subprocess.TimeoutExpired):
            return ""
        rows = [line.split("\t") for line in output.decode(errors="replace").splitlines() if "\t" in line]
        listed = ", ".join(f"{serial} ({state.strip()})" for serial, state, *_ in rows)
        return f"; adb sees {listed or 'no device'}"

    def _adb(self, *words: str, of_device: bool = True) -> subprocess.Popen[bytes]:
        device = ["-s", self.serial] if of_device else []
        install = "install Android's platform-tools (on Debian: apt-get install adb)"
        return start_program(PROGRAM, "adb", [*device, *words], install=install)


def adb_board(serial: str) -> AdbBoard:
    """Return the device of that serial number.

    Raises:
        TrilobitError: no device is called like that.
    """
    if _SERIAL.fullmatch(serial) is None:
        raise TrilobitError(
            f"a device is written adb:SERIAL/RUNTIME, got {shown(serial)}; `adb devices` lists them"
        )
    return AdbBoard(serial)


def _launched(options: AdbOptions) -> Launch:
    agent = launched(options)
    if isinstance(agent, PythonAgent) and not options.python:
        return PythonAgent(PYTHONS, agent.folder, agent.cache_bytes, agent.hang_s)
    return agent


ADB = scheme_kind(
    Reached("adb", adb_board, AdbOptions, _launched),
    summary="Android devices over adb, through a runtime there",
    metavar="SERIAL/RUNTIME",
)
