"""What a library is built for, and what one is; needs no TVM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # processes that only run a library load no torch
    from nas.run.run import Run


@dataclass(frozen=True, eq=False)
class ExportedLibrary:
    """The files of a library, and what the manifest says of it."""

    files: Mapping[str, bytes]
    record: Mapping[str, Any]


def library_target(run: "Run") -> str:
    """Return what a library is built for: what the configuration names, or the device where its kernels are
    TVM's; this machine where it is to be integer-only; empty for none.
    """
    config = run.config.export
    target = config.library if config.library or run.recorded else _device_target(run)
    return target or ("host" if config.integer_only else "")


def own_target(run: "Run") -> str:
    """Return what networks are built for where the run's device runs libraries that can be asked for answers,
    on this machine or on boards over ssh and adb; empty where it runs ONNX files, nothing, or libraries on
    boards behind a tracker.
    """
    if run.recorded or run.config.device.settings.get("tracker"):
        return ""
    return _device_target(run)


def _device_target(run: "Run") -> str:
    runtime = run.device.runtime
    if runtime is None or runtime.artifact != "library":
        return ""
    info = runtime.describe()
    if info.board:
        return info.provider  # which follows from what the board is, where nobody said
    return str(run.config.device.settings.get("target", ""))
