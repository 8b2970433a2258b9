"""What a run was computed with: versions of what it uses, the commit, the host."""

import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hw_profiles.engines import version_of
from hw_profiles.redaction import redacted
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.runtimes.plugin import HOST, device_kind
from nas.run.config import RunConfig
from nas.search.searcher import SEARCHERS

GIT_S = 5.0  # to wait for git
# of every run; an engine, and what a searcher brings, come on top
PACKAGES = ("trilobit", "torch", "numpy", "scikit-learn", "optuna", "onnx")


def environment_of(
    config: RunConfig, command: str, *, init: str, sums: IntegerSums, formats: Sequence[str]
) -> dict[str, Any]:
    """Return what a run is computed with, for people who want to know later: `env.json`.

    Args:
        command: the line that people wrote; passwords are taken out.
        init: what decides the first weights.
        sums: what the device does with large integer sums.
        formats: that its layers choose from.
    """
    versions = {name: version for name in packages_used(config) if (version := version_of(name))}
    return {
        "schema": "env/1",
        "versions": {"python": platform.python_version(), **versions},
        "commit": commit(),
        "command": redacted(command),
        "seed": config.seed,
        "init": init,
        "integer_sums": str(sums),
        "formats": list(formats),
        "host": {"system": platform.platform(), "machine": platform.machine()},
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def packages_used(config: RunConfig) -> tuple[str, ...]:
    """Return the packages that the results of a run depend on; other engines need not be installed."""
    kind = config.device.choice.kind
    kinds = [kind] if kind.artifact == "onnx" else [kind, device_kind(HOST)]  # that one runs the files
    engines = dict.fromkeys(package for kind in kinds for package in kind.engines.values())
    searcher = SEARCHERS.get(config.search.searcher, "")
    return (*PACKAGES, *engines, *(name for name in ("pymoo", "optuna") if name in searcher))


def commit() -> str | None:
    """Return the commit of these sources, with `-dirty` where they were changed; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no git, or a disk that does not answer
        return None
    return done.stdout.strip() or None
