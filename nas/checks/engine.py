"""What runs a file here: what it was exported for, or else what runs ONNX files on this machine. Imports no
torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.plugin import HOST, DeviceChoice, choice_of, choose
from hw_profiles.runtimes.runtime import Runtime


@dataclass(frozen=True)
class FileEngine:
    """A runtime of this machine that takes ONNX files.

    Attributes:
        choice: its name and options.
        runtime: ready.
        own: whether the file was timed on it when it was exported.
        refused: why what the file was exported for cannot be used here; empty where it can, or where that
            runs no such files.
    """

    choice: DeviceChoice
    runtime: Runtime
    own: bool = True
    refused: str = ""

    @property
    def title(self) -> str:
        """As people call it."""
        return self.choice.kind.title or self.choice.name

    def request(self) -> dict[str, Any]:
        """Return it as plain data, for a process of its own."""
        return {"name": self.choice.name, "options": self.choice.settings}


def file_engine(info: DeviceInfo) -> FileEngine:
    """Return what runs a file that was exported on such a device.

    Raises:
        TrilobitError: nothing here runs ONNX files.
    """
    refused = ""
    try:
        choice = choice_of(info)
        if choice is not None and choice.kind.artifact == "onnx":
            return FileEngine(choice, _runtime(choice))
    except TrilobitError as error:
        refused = str(error)
    host = choose(HOST, {"batch": info.batch})
    return FileEngine(host, _runtime(host), own=False, refused=refused)


def named_engine(text: str) -> FileEngine:
    """Return what a device's name such as `ort:threads=4` stands for.

    Raises:
        TrilobitError: no such device, or it runs no ONNX files.
    """
    choice = choose(text)
    if choice.kind.artifact != "onnx":
        raise TrilobitError(f"device {text!r} runs no ONNX files: choose one that does, such as {HOST}")
    return FileEngine(choice, _runtime(choice))


def _runtime(choice: DeviceChoice) -> Runtime:
    runtime = choice.open().runtime
    assert runtime is not None
    return runtime


def integer_count(kernels: Mapping[str, int], runtime: Runtime) -> int:
    """Return how many of some kernels compute on integers."""
    return sum(kernels.get(name, 0) for name in runtime.integer_kernels)
