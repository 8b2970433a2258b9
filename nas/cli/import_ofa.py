"""`nas import-ofa`: a published once-for-all checkpoint as a supernet that training and sampling start at."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from hw_profiles.errors import TrilobitError
from supernet.train.checkpoint import content_hash, save_checkpoint
from supernet.zoo.ofa_checkpoint import ORIGINAL_NAMES, Fit, Imported, import_original


def run(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Write the checkpoint as one of ours, and print what fitted.

    Raises:
        TrilobitError: the file is not readable without running code in it, or does not fit.
    """
    path: Path = arguments.file
    formats = tuple(name.strip() for name in arguments.formats.split(",")) if arguments.formats else None
    found = import_original(path, space=arguments.space, formats=formats)
    fit = found if isinstance(found, Fit) else found.fit
    for line in fit.lines():
        console.print(line, markup=False, soft_wrap=True)
    if isinstance(found, Fit):
        known = ", ".join(sorted(ORIGINAL_NAMES))
        remedy = "leave --space out to find its own" if arguments.space else f"known spaces: {known}"
        raise TrilobitError(
            f"{path}: does not fit {fit.space}: {len(fit.missing)} tensors missing, {len(fit.unexpected)} "
            f"unexpected, {len(fit.reshaped)} of another shape; {remedy}"
        )
    target: Path = arguments.output or Path(f"{fit.space}.pt")
    _save(target, path, found)
    console.print(
        f"{target}: {fit.classes} classes; use it with `nas train --space {fit.space} --init {target}`",
        markup=False,
        soft_wrap=True,
    )
    return {
        "checkpoint": str(target),
        "space": fit.space,
        "fingerprint": found.family.space().fingerprint,
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
