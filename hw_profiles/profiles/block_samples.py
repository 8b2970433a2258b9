"""Sampled sub-stages that others published, each with its loss and its latency: SpaceEvo's block tables (Wang
et al. 2023, arXiv:2303.08308).

Two forms: a folder of their CSV files (`DEVICE/stage1_0_0.csv`: configuration, input shape, loss, MFLOPs,
M parameters, milliseconds), and the same rows as arrays (`names` of the groups, `offsets` of their rows,
`vals` with a column for input channels, input pixels, loss, MFLOPs, M parameters and milliseconds).
"""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError

Group = tuple[int, int, int]  # stage, block type, width window: from 0
Rows = NDArray[np.float64]  # (n, 3) of `COLUMNS`
COLUMNS = ("input pixels", "loss", "milliseconds")
ARRAY_COLUMNS, TAKEN = 6, [1, 2, 5]  # of `vals`, and those of `COLUMNS` among them
MILLI = 1e-3

_NAME = re.compile(r"(?:(?P<device>[^/]+)/)?(?:stage)?(?P<stage>\d)_(?P<block>\d)_(?P<window>\d)")
_CSV = re.compile(r"[^,]+,\s*\d+x\d+x\d+x(?P<pixels>\d+),(?P<loss>[^,]+),[^,]+,[^,]+,(?P<ms>[^,]+)")


@dataclass(frozen=True, eq=False)
class BlockSamples:
    """The rows of one device.

    Attributes:
        device: its name in the publication.
        sizes: pixels of the maps that the first stage is given, ascending: one for each input resolution.
        groups: (stage, block type, width window, resolution: an index of `sizes`) -> (n, 2) loss and seconds.
    """

    device: str
    sizes: tuple[int, ...]
    groups: Mapping[tuple[int, int, int, int], NDArray[np.float64]]


def read_block_samples(path: Path, device: str | None = None) -> BlockSamples:
    """Read a published table of sampled sub-stages.

    Args:
        path: a file of arrays, or a folder of CSV files or of one such folder for every device.
        device: whose rows; needed where there are several.

    Raises:
        TrilobitError: no such table, of another form, with a row that is none, or of other devices.
    """
    path = Path(path)
    tables: dict[str, dict[Group, Rows]] = {}
    for name, rows in _folder(path) if path.is_dir() else _arrays(path):
        match = _NAME.fullmatch(name)
        if match is None:
            raise TrilobitError(f"{path}: {name!r} is no group; write DEVICE/stage1_0_0: stage, type, window")
        if not len(rows) or not np.isfinite(rows).all() or (rows <= 0).any():
            raise TrilobitError(f"{path}: {name} has a row without positive {', '.join(COLUMNS)}, or none")
        at = int(match["stage"]) - 1, int(match["block"]), int(match["window"])
        tables.setdefault(match["device"] or path.name, {})[at] = rows
    devices = ", ".join(sorted(tables))
    if device is None and len(tables) > 1:
        raise TrilobitError(f"{path} has rows of {devices}: name one, as in {path}:{min(tables)}")
    if not tables or (device is not None and device not in tables):
        raise TrilobitError(f"{path}: no rows of {device or 'any device'}; it has {devices or 'none'}")
    device = device or devices
    return _by_resolution(path, device, tables[device])


def _by_resolution(path: Path, device: str, table: Mapping[Group, Rows]) -> BlockSamples:
    """Split every group by the size of its input, which tells the resolution of the network's."""
    sizes: dict[int, set[int]] = {}
    for (stage, _, _), rows in table.items():
        sizes.setdefault(stage, set()).update(rows[:, 0].astype(int).tolist())
    ordered = {stage: sorted(several) for stage, several in sorted(sizes.items())}
    first = ordered[min(ordered)]
    for stage, several in ordered.items():
        scaled = [size * first[0] for size in several] == [size * several[0] for size in first]
        if not scaled:
            raise TrilobitError(
                f"{path}: stage {stage + 1} is given maps of {several} pixels, stage {min(ordered) + 1} of "
                f"{first}; every stage must have the same resolutions"
            )
    groups = {}
    for (stage, block, window), rows in table.items():
        for resolution, pixels in enumerate(ordered[stage]):
            at = stage, block, window, resolution
            groups[at] = rows[rows[:, 0] == pixels][:, 1:] * [1.0, MILLI]
    return BlockSamples(device, tuple(first), groups)


def _arrays(path: Path) -> Iterator[tuple[str, Rows]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names, offsets, values = (file[name] for name in ("names", "offsets", "vals"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrilobitError(f"{path}: no table of blocks with names, offsets and vals ({error})") from None
    whole = values.ndim == 2 and values.shape[1] == ARRAY_COLUMNS and values.dtype.kind in "fiu"
    ends = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) == len(names) + 1
    if not whole or not ends or offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise TrilobitError(
            f"{path}: vals is {values.shape}, offsets {offsets.shape}; it takes {ARRAY_COLUMNS} columns "
            "(input channels and pixels, loss, MFLOPs, M parameters, ms) and where each group begins and ends"
        )
    for name, start, end in zip(names.tolist(), offsets[:-1], offsets[1:], strict=True):
        yield str(name), values[start:end, TAKEN].astype(float)


def _folder(path: Path) -> Iterator[tuple[str, Rows]]:
    files = sorted([*path.glob("*.csv"), *path.glob("*/*.csv")])
    for file in files:
        name = file.stem if file.parent == path else f"{file.parent.name}/{file.stem}"
        yield name, _csv(file, file.read_text(errors="replace").splitlines())


def _csv(path: Path, lines: Sequence[str]) -> Rows:
    rows = []
    for number, line in enumerate(filter(str.strip, lines), 1):
        match = _CSV.fullmatch(line)
        try:
            rows.append([float(match[part]) for part in ("pixels", "loss", "ms")] if match else [np.nan])
        except ValueError:
            match = None
        if match is None:
            raise TrilobitError(
                f"{path}: line {number} is {line[:60]!r}; it takes 6 fields, the second such as 1x24x112x112"
            )
    return np.array(rows, float).reshape(-1, len(COLUMNS))
