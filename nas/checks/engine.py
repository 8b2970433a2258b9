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
    """A runtime that takes ONNX files, of this machine or on a board.

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


def engine_for(info: DeviceInfo, device: str = "") -> FileEngine:
    """Return what runs a file that was exported on such a device: `device` where that names one.

    Raises:
        TrilobitError: see `named_engine` and `file_engine`.
    """
    return named_engine(device, info.engine) if device else file_engine(info)


def chosen_engine(choice: DeviceChoice, info: DeviceInfo) -> FileEngine:
    """Return what runs a file on a device: that itself where it takes such, else what runs it here.

    Raises:
        TrilobitError: it does not run, or nothing here does.
    """
    if choice.kind.artifact == "onnx":
        return FileEngine(choice, _runtime(choice))
    return file_engine(info)


def named_engine(text: str, exported_for: str = "") -> FileEngine:
    """Return what a device's name such as `ort:threads=4` stands for, which is reached here: what is wrong
    with it is said before anything is begun.

    Args:
        exported_for: the engine that a file was timed on; empty where it is only this one.

    Raises:
        TrilobitError: no such device, it runs no ONNX files, or it is not there.
    """
    choice = choose(text)
    if choice.kind.artifact != "onnx":
        raise TrilobitError(f"device {text!r} runs no ONNX files: choose one that does, such as {HOST}")
    runtime = _runtime(choice)
    return FileEngine(choice, runtime, own=runtime.describe().engine == (exported_for or choice.kind.engine))


def _runtime(choice: DeviceChoice) -> Runtime:
    runtime = choice.open().runtime
    assert runtime is not None
    return runtime


def integer_count(kernels: Mapping[str, int], runtime: Runtime) -> int:
    """Return how many of some kernels compute on integers."""
    return sum(kernels.get(name, 0) for name in runtime.integer_kernels)
