"""A trained model from a file of somebody's: read in a process of its own first, since it may be anything."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from hw_profiles.documents import parse
from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import HOST, choose
from nas.checks.confined import ConfinedError, Limits, confined
from nas.checks.model_task import ModelFacts, Outline
from supernet.imported.fixed_value import Fixed
from supernet.imported.import_onnx import describe
from supernet.imported.made_up import Feeds
from supernet.imported.model import ImportedModel

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from supernet.imported.import_torch import Examples

TASK = "nas.checks.model_task:prepare_model"
WALL_S, WALL_S_PER_BYTE = 120.0, 1e-6  # until reading is given up
MEMORY_BYTES, MEMORY_PER_BYTE = 16 * 2**30, 12  # of addresses: the model is held several times


@dataclass(frozen=True)
class OpenedModel:
    """A trained model, ready to be tuned.

    Attributes:
        name: what it is called: the path of its file, or the class of a torch module.
        original: the ONNX file as it came, with the weights that it keeps in others.
        model: prepared.
        outline: what the file says of itself.
        facts: what running it once showed.
    """

    name: str
    original: bytes
    model: ImportedModel
    outline: Outline
    facts: ModelFacts


def open_model(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    device: str = HOST,
    feeds: Feeds | None = None,
    fixed: Fixed | None = None,
    name: str = "",
) -> OpenedModel:
    """Return the trained model in an ONNX file.

    Args:
        path: of the file.
        shapes: sizes of inputs with open dimensions, by name.
        device: where it is run once.
        feeds: an example of what it reads; made up without.
        fixed: value of inputs that always have the same.
        name: what it is called; empty for the path.

    Raises:
        TrilobitError: it is no ONNX file that can be used, dimensions have no size, or nothing here runs it.
    """
    opened = look_at(path, shapes, device=device, feeds=feeds, fixed=fixed, name=name)
    if isinstance(opened, Outline):
        raise TrilobitError(f"{name or path}: {opened.request}")
    return opened


def look_at(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    device: str = HOST,
    feeds: Feeds | None = None,
    fixed: Fixed | None = None,
    name: str = "",
) -> OpenedModel | Outline:
    """Return the trained model in an ONNX file, or what it says of itself where dimensions need a size first;
    see `open_model`.

    Raises:
        TrilobitError: it is no ONNX file that can be used, or nothing here runs it.
    """
    given, shapes = dict(feeds or {}), dict(shapes or {})
    request = {"path": str(path.absolute()), "shapes": shapes, "fixed": dict(fixed or {})}
    document, files = _asked(path, request, device, given, name or str(path))
    outline = parse(Outline, document["outline"])
    if "facts" not in document:
        return outline
    return OpenedModel(
        name=name or str(path),
        original=files["original"].tobytes(),
        model=describe(files["content"].tobytes(), shapes, given or None, fixed),
        outline=outline,
        facts=parse(ModelFacts, document["facts"]),
    )


def _asked(
    path: Path, about: Mapping[str, Any], device: str, feeds: Feeds, name: str
) -> tuple[Any, Mapping[str, NDArray[Any]]]:
    """Return what a process of its own says of a file.

    Raises:
        TrilobitError: it refuses the file, or gives no answer.
    """
    choice = choose(device)
    if choice.kind.artifact != "onnx":
        choice = choose(HOST)
    request = {
        **about,
        "device": {"name": choice.name, "options": choice.settings},
        "inputs": [*feeds],
    }
    size = path.stat().st_size if path.is_file() else 0
    limits = Limits(WALL_S + WALL_S_PER_BYTE * size, MEMORY_BYTES + MEMORY_PER_BYTE * size)
    arrays = {f"feed{i}": array for i, array in enumerate(feeds.values())}
    try:
        document, files = confined(TASK, request, limits=limits, arrays=arrays)
    except ConfinedError as error:
        raise TrilobitError(f"{name}: reading it failed: {error}") from None
    if "refused" in document:
        raise TrilobitError(f"{name}: {document['refused'].removeprefix(f'{path.absolute()}: ')}")
    return document, files


def open_content(
    content: bytes,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    device: str = HOST,
    feeds: Feeds,
    fixed: Fixed | None = None,
    name: str,
) -> OpenedModel:
    """Return the trained model in the bytes of an ONNX file; see `open_model`.

    Raises:
        TrilobitError: it cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="trilobit-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content)
        return open_model(path, shapes, device=device, feeds=feeds, fixed=fixed, name=name)


def open_module(
    module: "nn.Module | ExportedProgram", example_inputs: "Examples", **export: Any
) -> OpenedModel:
    """Return a trained torch module.

    Args:
        module: see `supernet.imported.import_torch.onnx_of`, and the other arguments.

    Raises:
        TrilobitError: torch cannot export it, or the network cannot be used; says why.
    """
    from supernet.imported.import_torch import feeds_of, onnx_of  # torch: only where a module is given

    content = onnx_of(module, example_inputs, **export)
    feeds = feeds_of(content, example_inputs)
    shapes = {name: array.shape for name, array in feeds.items()}
    return open_content(content, shapes, feeds=feeds, name=type(module).__name__)
