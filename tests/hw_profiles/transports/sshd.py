"""A real sshd on loopback: its own host key, its own user's key, its own port; nobody's ~/.ssh is touched."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

import pytest

SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
SEPARATION = Path("/run/sshd")
READY_S = 20.0
# what the key of an account makes its shell do, before the command that was sent
ACCOUNTS: Mapping[str, str] = {
    "board": "",
    "short-path": "PATH=/nowhere",
    "full-disk": "ulimit -f 8",  # blocks: 4 or 8 KB a file
    "talks": "echo Welcome to the board",
}


@dataclass(frozen=True)
class Server:
    """An sshd.

    Attributes:
        folder: of its keys and configurations.
        port: that it listens at.
        pid: of it.
        accounts: hosts by whose names it is known.
    """

    folder: Path
    port: int
    pid: int
    accounts: tuple[str, ...] = tuple(ACCOUNTS)

    def program(self, *more: str) -> str:
        """Return the ssh that knows its accounts as hosts, with more lines of configuration before theirs."""
        path = self.folder / f"config-{len(list(self.folder.glob('config-*')))}"
        lines = [*more]
        for account in self.accounts:
            lines += [
                f"Host {account}",
                f"  Port {self.port}",
                f"  IdentityFile {self.folder / account}",
            ]
        lines += [
            "Host *",
            "  HostName 127.0.0.1",
            f"  User {getuser()}",
            "  HostKeyAlias trilobit-test",
            "  IdentitiesOnly yes",
            "  IdentityAgent none",
            "  PreferredAuthentications publickey",
            "  StrictHostKeyChecking yes",
            f"  UserKnownHostsFile {self.folder / 'known_hosts'}",
            "  GlobalKnownHostsFile /dev/null",
        ]
        path.write_text("\n".join(lines) + "\n")
        return f"ssh -F {path}"

    def sessions(self) -> list[int]:
        """Return the processes that serve connections."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return list(map(int, listed))

    def cut(self) -> None:
        """End every connection; what ran behind it is left to itself."""
        for pid in self.sessions():
            _kill(pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def why_not() -> str:
    """Return why there can be no server here; empty where there can."""
    for program in ("ssh", "ssh-keygen", "sshd"):
        if shutil.which(program, path=SBIN) is None:
            return f"{program} is not installed: apt-get install openssh-server"
    if os.getuid() == 0 and not SEPARATION.is_dir():
        try:
            SEPARATION.mkdir()
        except OSError as error:
            return f"sshd needs {SEPARATION} ({error.strerror})"
    return ""


@contextmanager
def served(folder: Path, accounts: Mapping[str, str] = ACCOUNTS) -> Iterator[Server]:
    """Run a server while the block lasts.

    Args:
        accounts: see `ACCOUNTS`.
    """
    folder.chmod(0o700)
    for name in ("host", *accounts, "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    authorised = []
    for account, first in accounts.items():
        run = f'command="{first}; eval \\"$SSH_ORIGINAL_COMMAND\\"" ' if first else ""
        authorised.append(run + (folder / f"{account}.pub").read_text())
    (folder / "authorized_keys").write_text("".join(authorised))
    (folder / "authorized_keys").chmod(0o600)
    host_key = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"trilobit-test {host_key}")
    port = _free_port()
    config = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        "UsePAM": "no",
        "MaxStartups": "100",
        "LogLevel": "ERROR",
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in config.items()))
    sshd = str(shutil.which("sshd", path=SBIN))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _wait_for(port, process, folder / "log")
        yield Server(folder, port, process.pid, tuple(accounts))
    finally:
        if process.poll() is None:
            Server(folder, port, process.pid).cut()
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here: {log.read_text().strip()[:200]}")
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"sshd does not listen at {port}")
