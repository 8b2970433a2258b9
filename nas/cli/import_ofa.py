"""`nas import-ofa`: a published once-for-all checkpoint as a supernet that training and sampling start at."""

from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from nas.run.reporting import QUIET, Reporter
from supernet.train.checkpoint import content_hash, save_checkpoint
from supernet.zoo.ofa_checkpoint import ORIGINAL_NAMES, Fit, Imported, import_original


def import_checkpoint(
    path: Path,
    *,
    space: str | None = None,
    formats: tuple[str, ...] | None = None,
    output: Path | None = None,
    reporter: Reporter = QUIET,
) -> dict[str, Any]:
    """Write a published checkpoint as one of ours, and print what fitted.

    Args:
        space: whose it is; None finds that by the names and shapes of its tensors.
        formats: number formats of the space; None takes its own.
        output: where to; None is the space's name, in this folder.

    Raises:
        TrilobitError: the file is not readable without running code in it, or does not fit.
    """
    imported = import_original(path, space=space, formats=formats)
    fit = imported if isinstance(imported, Fit) else imported.fit
    for line in fit.lines():
        reporter.say(line)
    if isinstance(imported, Fit):
        spaces = ", ".join(sorted(ORIGINAL_NAMES))
        remedy = "leave --space out to find its own" if space else f"known spaces: {spaces}"
        raise TrilobitError(
            f"{path}: does not fit {fit.space}: {len(fit.missing)} tensors missing, {len(fit.unexpected)} "
            f"unexpected, {len(fit.reshaped)} of another shape; {remedy}"
        )
    target = output or Path(f"{fit.space}.pt")
    _save(target, path, imported)
    reporter.say(
        f"{target}: {fit.classes} classes; use it with `nas train --space {fit.space} --init {target}`",
    )
    return {
        "checkpoint": str(target),
        "space": fit.space,
        "fingerprint": imported.family.space().fingerprint,
        "classes": fit.classes,
        "tensors": len(fit.fitted),
    }


def _save(target: Path, path: Path, imported: Imported) -> None:
    described = {
        "space": imported.family.space().fingerprint,
        "name": imported.family.name,
        "metadata": {"imported from": path.name, "sha256": content_hash(path)},
    }
    nothing_left = {"step": 0, "steps": 0}  # to train
    save_checkpoint(target, {**described, **nothing_left, "model": dict(imported.model)})
