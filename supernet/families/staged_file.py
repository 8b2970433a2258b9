"""Staged spaces as files: what `nas spaces design` writes and `--space FILE.json` reads."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json, write_json
from supernet.families.mbconv import DEFAULT_FORMATS
from supernet.families.staged import StagedFamily
from supernet.families.staged_layers import BLOCKS, Stage

SCHEMA = "space/1"


@dataclass(frozen=True)
class StagedSpace:
    """What a file of schema `space/1` says: a staged family but for the data and the number formats.

    Raises:
        TrilobitError: a value that no network can have.
    """

    title: str
    resolutions: tuple[int, ...]
    stem_width: int
    stem_stride: int
    head_width: int
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.title or not self.stages:
            raise TrilobitError("a space needs a title and at least one stage")
        _require_ascending("resolutions", self.resolutions)
        for name in ("stem_width", "stem_stride", "head_width"):
            _require_ascending(name, (getattr(self, name),))
        for s, stage in enumerate(self.stages):
            if stage.block not in BLOCKS:
                known = ", ".join(BLOCKS)
                raise TrilobitError(f"stages[{s}].block: unknown block type {stage.block!r}; known: {known}")
            for name in ("widths", "depths", "kernels", "percents"):
                _require_ascending(f"stages[{s}].{name}", getattr(stage, name))
            _require_ascending(f"stages[{s}].stride", (stage.stride,))
            if any(kernel % 2 == 0 for kernel in stage.kernels):
                raise TrilobitError(f"stages[{s}].kernels must be odd, got {list(stage.kernels)}")

    @property
    def name(self) -> str:
        """The title and a hash of all else: two spaces of one name are one."""
        described = json.dumps({**asdict(self), "title": ""}, sort_keys=True)
        return f"{self.title}-{hashlib.sha256(described.encode()).hexdigest()[:8]}"

    def family(
        self, *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
    ) -> StagedFamily:
        """The space for data of so many channels and classes."""
        sizes = {name: value for name, value in vars(self).items() if name != "title"}
        return StagedFamily(
            name=self.name, in_channels=in_channels, classes=classes, formats=formats, **sizes
        )


def _require_ascending(name: str, values: Any) -> None:
    """Refuse what is not at least one whole number from 1, in order."""
    listed = isinstance(values, tuple) and len(values) > 0
    whole = listed and all(type(value) is int and value >= 1 for value in values)
    if not whole or list(values) != sorted(set(values)):
        raise TrilobitError(f"{name} must be whole numbers from 1, ascending, each once; got {values!r}")


def save_space(path: Path, space: StagedSpace, origin: Mapping[str, Any]) -> None:
    """Write a space, and what is known of where it comes from, as a file of schema `space/1`."""
    write_json(path, {"schema": SCHEMA, **asdict(space), "origin": dict(origin)})


def load_space(path: Path) -> StagedSpace:
    """The space in a file of schema `space/1`.

    Raises:
        TrilobitError: there is none, or it is not one; the message names the file and the value.
    """
    document = read_json(path, SCHEMA)
    try:
        stages = tuple(_section(Stage, one, f"stages[{s}]") for s, one in enumerate(document["stages"]))
        given = {key: value for key, value in document.items() if key not in ("schema", "origin")}
        space: StagedSpace = _section(StagedSpace, {**given, "stages": stages}, "the space")
    except (TrilobitError, TypeError, KeyError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise TrilobitError(f"{path}: not a space that can be built: {reason}") from None
    return space


def space_in_file(
    path: str, *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> StagedFamily:
    """The family in a file of schema `space/1`, for data of so many channels and classes.

    Raises:
        TrilobitError: as `load_space`.
    """
    return load_space(Path(path)).family(in_channels=in_channels, classes=classes, formats=formats)


def _section(kind: Any, values: Any, where: str) -> Any:
    """An instance of a dataclass by its fields, lists as tuples.

    Raises:
        TrilobitError: a field is missing, or one is unknown.
    """
    if not isinstance(values, dict):
        raise TrilobitError(f"{where} must be an object, got {values!r}")
    known = set(kind.__dataclass_fields__)
    unknown, missing = sorted(set(values) - known), sorted(known - set(values))
    if unknown or missing:
        found = f"unknown {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise TrilobitError(f"{where}: {found}; its fields are {', '.join(sorted(known))}")
    return kind(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )
