"""What a library is built for, and what one is; needs no TVM."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.run.run import Run


@dataclass(frozen=True, eq=False)
class ExportedLibrary:
    """The files of a library, and what the manifest says of it."""

    files: Mapping[str, bytes]
    record: Mapping[str, Any]


def library_target(run: Run) -> str:
    """Return what a library is built for: what the configuration names, or the device where its kernels are
    TVM's; empty for none.
    """
    if run.config.export.library or run.recorded:
        return run.config.export.library
    runtime = run.device.runtime
    return str(run.config.device.settings["target"]) if runtime and runtime.artifact == "library" else ""
