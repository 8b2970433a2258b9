"""Staged spaces as files: what `nas spaces design` writes and `--space FILE.json` reads."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from hw_profiles.documents import read_document
from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_json
from supernet.families.family import DEFAULT_FORMATS
from supernet.families.staged import BLOCKS, Stage, StagedFamily

SCHEMA = "space/1"
MOST = 10_000  # channels, percent
LARGEST = {"depths": 100, "kernels": 99, "resolutions": 4_096, "stem_stride": 8, "stride": 8}


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
                block_types = ", ".join(BLOCKS)
                raise TrilobitError(
                    f"stages[{s}].block: unknown block type {stage.block!r}; known: {block_types}"
                )
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
        """Return the space for data of so many channels and classes."""
        return StagedFamily(
            name=self.name,
            resolutions=self.resolutions,
            stem_widths=(self.stem_width,),
            stages=self.stages,
            head_width=self.head_width,
            in_channels=in_channels,
            classes=classes,
            formats=formats,
            stem_stride=self.stem_stride,
        )


def _require_ascending(name: str, values: tuple[int, ...]) -> None:
    """Refuse what is not at least one whole number from 1 to what a network can have, in order."""
    most = LARGEST.get(name.rpartition(".")[2], MOST)
    if not values or list(values) != sorted(set(values)) or values[0] < 1 or values[-1] > most:
        raise TrilobitError(
            f"{name} must be whole numbers from 1 to {most}, ascending, each once; got {list(values)[:8]}"
        )


def save_space(path: Path, space: StagedSpace, origin: Mapping[str, Any]) -> None:
    """Write a space, and what is known of where it comes from, as a file of schema `space/1`."""
    write_json(path, {"schema": SCHEMA, **asdict(space), "origin": dict(origin)})


@dataclass(frozen=True)
class _File(StagedSpace):
    """A space, and what is known of where it comes from."""

    SCHEMA: ClassVar[str] = SCHEMA
    REMEDY: ClassVar[str] = "not a space that can be built"
    STRICT: ClassVar[bool] = True

    origin: Mapping[str, Any] = field(default_factory=dict)


def load_space(path: Path) -> StagedSpace:
    """Return the space in a file of schema `space/1`.

    Raises:
        TrilobitError: there is none, or it is not one; the message names the file and the value.
    """
    file = read_document(path, _File)
    return StagedSpace(**{part.name: getattr(file, part.name) for part in fields(StagedSpace)})


def space_in_file(
    path: str, *, in_channels: int, classes: int, formats: tuple[str, ...] = DEFAULT_FORMATS
) -> StagedFamily:
    """Return the family in a file of schema `space/1`, for data of so many channels and classes.

    Raises:
        TrilobitError: as `load_space`.
    """
    return load_space(Path(path)).family(in_channels=in_channels, classes=classes, formats=formats)
