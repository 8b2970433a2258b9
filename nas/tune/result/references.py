"""What the files of a tuned network are compared with: its original in fp32, what the runtime's own recipes
make of it, and all of it in int8 by us. A recipe that fails is a row with the reason, never the end of a run.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import HOST, DeviceKind, Recipe, device_kind
from nas.checks.confined import GIB, ConfinedError, Limits, confined
from nas.run.tuned_document import ALL_INT8
from supernet.data.samples import Samples

ORIGINAL = "fp32"
ORIGINAL_TITLE, ALL_INT8_TITLE = "the original in fp32", "all int8 by us"
LIMITS = Limits(wall_s=300.0, memory_bytes=32 * GIB)
SOURCE = "original.onnx"


@dataclass(frozen=True, eq=False)
class ReferenceFile:
    """A network that others are compared with.

    Attributes:
        name: short, and as a file may be called.
        title: as people call it.
        model: its ONNX file; empty where there is none.
        notes: what had to be done to get it.
        error: why there is none; empty where there is.
    """

    name: str
    title: str
    model: bytes = b""
    notes: tuple[str, ...] = ()
    error: str = ""


def reference_files(
    original: bytes,
    all_int8: Callable[[], bytes],
    calibration: Samples,
    recipes: Sequence[Recipe],
    *,
    limits: Limits = LIMITS,
    on_done: Callable[[str], None] = lambda title: None,
) -> tuple[ReferenceFile, ...]:
    """Return the files of all references, the original first.

    Args:
        original: what others are compared with: the whole file, as the user gave it, or its library.
        all_int8: gives it with every unit in int8 that can be.
        calibration: examples that the recipes find ranges on.
        recipes: that are followed; each makes something of the original.
        limits: of each recipe.
        on_done: called with the title of each that is done.
    """
    files = [ReferenceFile(ORIGINAL, ORIGINAL_TITLE, original)]
    on_done(ORIGINAL_TITLE)
    with tempfile.TemporaryDirectory(prefix="trilobit-") as name:
        folder = Path(name)
        (folder / SOURCE).write_bytes(original)
        for recipe in recipes:
            files.append(_followed(recipe.name, recipe.title, recipe.task, folder, calibration, limits))
            on_done(recipe.title)
    files.append(_own(all_int8))
    on_done(ALL_INT8_TITLE)
    return tuple(files)


def recipes_of(kind: DeviceKind) -> tuple[Recipe, ...]:
    """Return the recipes of a device's runtime; where it has none, those of this machine's."""
    return kind.recipes or device_kind(HOST).recipes


def _own(all_int8: Callable[[], bytes]) -> ReferenceFile:
    try:
        return ReferenceFile(ALL_INT8, ALL_INT8_TITLE, all_int8())
    except TrilobitError as error:
        return ReferenceFile(ALL_INT8, ALL_INT8_TITLE, error=str(error))


def _followed(
    name: str, title: str, task: str, folder: Path, calibration: Samples, limits: Limits
) -> ReferenceFile:
    """Return what a recipe makes of the original in `folder`, in a process of its own."""
    request = {
        "path": str(folder / SOURCE),
        "names": list(calibration.inputs),
        "folder": str(folder),
    }
    arrays = {f"input_{i}": array for i, array in enumerate(calibration.inputs.values())}
    try:
        document, answer = confined(task, request, limits=limits, arrays=arrays)
        return ReferenceFile(name, title, answer["model"].tobytes(), _notes(document))
    except (ConfinedError, MismatchError, KeyError) as error:
        return ReferenceFile(name, title, error=str(error))


def _notes(document: Mapping[str, Any]) -> tuple[str, ...]:
    return parse(_Answer, document).notes


@dataclass(frozen=True)
class _Answer:
    """What a recipe says beside its file."""

    notes: tuple[str, ...]
