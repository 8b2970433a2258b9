"""A trained model from a file of somebody's: read in a process of its own first, since it may be anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.documents import parse
from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import HOST, choose
from nas.checks.confined import ConfinedError, Limits, confined
from nas.checks.model_task import ModelFacts
from supernet.imported.import_onnx import describe
from supernet.imported.made_up import Feeds
from supernet.imported.model import ImportedModel

TASK = "nas.checks.model_task:prepare_model"
WALL_S, WALL_S_PER_BYTE = 120.0, 1e-6  # until reading is given up
MEMORY_BYTES, MEMORY_PER_BYTE = 16 * 2**30, 12  # of addresses: the model is held several times


@dataclass(frozen=True)
class OpenedModel:
    """A trained model, ready to be tuned.

    Attributes:
        path: of its file.
        model: prepared.
        facts: of the file as it was.
    """

    path: Path
    model: ImportedModel
    facts: ModelFacts


def open_model(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    device: str = HOST,
    feeds: Feeds | None = None,
) -> OpenedModel:
    """Return the trained model in an ONNX file.

    Args:
        path: of the file.
        shapes: sizes of inputs with open dimensions, by name.
        device: where it is run once.
        feeds: an example of what it reads; made up without.

    Raises:
        TrilobitError: it is no ONNX file that can be used, dimensions have no size, or nothing here runs it.
    """
    choice = choose(device)
    if choice.kind.artifact != "onnx":
        choice = choose(HOST)
    given, shapes = dict(feeds or {}), dict(shapes or {})
    request = {
        "path": str(path.absolute()),
        "shapes": shapes,
        "device": {"name": choice.name, "options": choice.settings},
        "inputs": [*given],
    }
    size = path.stat().st_size if path.is_file() else 0
    limits = Limits(WALL_S + WALL_S_PER_BYTE * size, MEMORY_BYTES + MEMORY_PER_BYTE * size)
    try:
        arrays = {f"feed{i}": array for i, array in enumerate(given.values())}
        document, found = confined(TASK, request, limits=limits, arrays=arrays)
    except ConfinedError as error:
        raise TrilobitError(f"{path}: reading it failed: {error}") from None
    if "refused" in document:
        raise TrilobitError(f"{path}: {document['refused']}")
    content = found["content"].tobytes()
    return OpenedModel(path, describe(content, shapes, given or None), parse(ModelFacts, document["facts"]))
