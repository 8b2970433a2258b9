"""Latency tables that others published, as profiles of the devices they were made on.

Three forms, told apart by what is in the file: once-for-all's JSON with resolutions (milliseconds),
ProxylessNAS's JSON of one resolution (milliseconds), APQ's arrays from the Bit Fusion simulator (milliseconds
and millijoules).
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer, at_size, changed, map_layer
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.profiles.apq_parts import CONSTANTS, is_uncounted
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.runtimes.info import DeviceInfo

ONCE_FOR_ALL = "once-for-all latency table (Cai et al. 2020, arXiv:1908.09791)"
PROXYLESS = "ProxylessNAS latency table (Cai et al. 2019, arXiv:1812.00332)"
BIT_FUSION = "APQ's table of the Bit Fusion simulator (Wang et al. 2020, arXiv:2006.08509)"
FORMS = f"{ONCE_FOR_ALL}; {PROXYLESS}; {BIT_FUSION}"
COLUMNS = (
    *("in channels", "out channels", "in size", "kernel", "stride", "padding", "groups"),
    *("weight bits", "activation bits", "latency ms", "energy mJ"),
)
STEM_KERNEL = 3  # the tables name the stem's sizes only; both families' stems are 3 x 3
MILLI = 1e-3
LARGEST = 1e30  # of any figure; whatever is above is no measurement, and need not fit a float

# How a table was made is on record elsewhere; nothing is repeated or waited for here.
PLAN = MeasurePlan(rounds=1, warmup_runs=0, waiting_s=0.0)

_KEY = re.compile(
    r"(?P<op>[A-Za-z0-9_]+)-input:(?P<source>\d+x\d+x\d+)-output:(?P<target>\d+x\d+x\d+|\d+)"
    r"(?:-expand:(?P<expand>\d+)-kernel:(?P<kernel>\d+)-stride:(?P<stride>\d+)-idskip:(?P<skip>[01])"
    r"(?:-se:(?P<se>[01])-hs:(?P<hs>[01]))?)?"
)


@dataclass(frozen=True)
class Entry:
    """One published figure.

    Attributes:
        latency_s: mean seconds.
        std_s: standard deviation of the single times in seconds; None where none was published.
        count: how many times it was measured; 1 where it was computed.
        energy_j: joules; None where none was published.
    """

    latency_s: float
    std_s: float | None = None
    count: int = 1
    energy_j: float | None = None


@dataclass(frozen=True)
class Answer:
    """What a table says of a unit: a figure, or the reason why there is none.

    Attributes:
        how: `measured` at this very size, `interpolated` between two sizes, `uncounted` where the authors'
            own sums leave it out, or `missing`.
        latency_s, energy_j: nan and None where there is none.
        reason: what is covered instead; empty where there is a figure.
    """

    how: Literal["measured", "interpolated", "uncounted", "missing"]
    latency_s: float = math.nan
    energy_j: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Coverage:
    """How far a table reaches for some units.

    Attributes:
        table: its name.
        covered: measured at this very size.
        interpolated: between two sizes of theirs.
        missing: unit -> why there is no figure.
        uncounted: left out of the authors' own sums: 0 s and 0 J.
    """

    table: str
    covered: tuple[Layer, ...]
    interpolated: tuple[Layer, ...]
    missing: Mapping[Layer, str]
    uncounted: tuple[Layer, ...] = ()

    def __str__(self) -> str:
        """Return one line."""
        total = len(self.covered) + len(self.interpolated) + len(self.missing) + len(self.uncounted)
        line = (
            f"{self.table}: {len(self.covered)} of {total} units in the table, "
            f"{len(self.interpolated)} interpolated, {len(self.missing)} missing"
            + f", {len(self.uncounted)} that its authors do not count"
            * bool(self.uncounted)
        )
        first = next(iter(self.missing.items()), None)
        return f"{line}; first missing: {first[0].key()}: {first[1]}" if first else line


@dataclass(frozen=True)
class PublishedTable:
    """A table as published.

    Attributes:
        name: from the file's name, safe for files.
        source: which publication.
        entries: figure of every unit, at the sizes that were measured.
        constants: figures of parts that are no unit, by their published name.
        knows_activations: whether a unit's activation function is part of its identity; where it is not,
            look-ups ignore `Layer.activation`.
        parts: units that a constant is the figure of.
        uncounted: whether the authors' sums leave out a unit.
    """

    name: str
    source: str
    entries: Mapping[Layer, Entry]
    constants: Mapping[str, Entry] = field(default_factory=dict)
    knows_activations: bool = True
    parts: Mapping[Layer, Entry] = field(default_factory=dict)
    uncounted: Callable[[Layer], bool] = field(default=lambda layer: False)

    @cached_property
    def curves(self) -> Mapping[Layer, Mapping[int, Entry]]:
        """Unit without its size -> area of its map -> figure, smallest first."""
        by_size: dict[Layer, dict[int, list[Entry]]] = {}
        for layer, entry in self.entries.items():
            by_size.setdefault(_sizeless(layer), {}).setdefault(area(layer), []).append(entry)
        return {
            unit: {size: merged(entries) for size, entries in sorted(sizes.items())}
            for unit, sizes in by_size.items()
        }

    def find(self, layer: Layer) -> Answer:
        """Return the figure of a unit: as measured, or piecewise linear in the map's area between two
        sizes.
        """
        layer = layer if self.knows_activations else changed(layer, activation="none")
        entry = self.entries.get(layer) or self.parts.get(layer)
        if entry is not None:
            return Answer("measured", entry.latency_s, entry.energy_j)
        if self.uncounted(layer):
            return Answer("uncounted", 0.0, 0.0)
        curve = self.curves.get(_sizeless(layer), {})
        if not curve:
            return Answer("missing", reason=f"no such unit in the table, which has {self._contents}")
        positions, sizes = area(layer), list(curve)
        if not sizes[0] <= positions <= sizes[-1]:
            reach = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0])
            return Answer("missing", reason=f"measured for maps of {reach} positions, not of {positions}")
        return interpolated(curve, positions)

    def coverage(self, layers: Iterable[Layer]) -> Coverage:
        """Return how far the table reaches for these units, each counted once."""
        answers = {layer: self.find(layer) for layer in layers}
        by_answer = {
            how: tuple(layer for layer, answer in answers.items() if answer.how == how)
            for how in ("measured", "interpolated", "uncounted", "missing")
        }
        missing = {layer: answers[layer].reason for layer in by_answer["missing"]}
        return Coverage(
            self.name, by_answer["measured"], by_answer["interpolated"], missing, by_answer["uncounted"]
        )

    def device(self) -> DeviceInfo:
        """Return the table in place of a device."""
        joules = any(entry.energy_j is not None for entry in self.entries.values())
        energy = f"published: {self.source}" if joules else "not published"
        description = (self.name, "see provider", "published table", "1", self.source)
        return DeviceInfo(*description, energy=energy, integer_sums="exact", figures="published")

    def profile(self) -> DeviceProfile:
        """Return the rows as measured, one sample each: nothing is interpolated and nothing calibrated."""
        table = {
            layer: Measurement((entry.latency_s,), energy_j=entry.energy_j)
            for layer, entry in self.entries.items()
        }
        return DeviceProfile(self.device(), PLAN, table)

    @cached_property
    def _contents(self) -> str:
        ops = [layer.kind for layer in self.curves]
        return ", ".join(f"{ops.count(op)} {op}" for op in sorted(set(ops)))


def area(layer: Layer) -> int:
    """Return the positions of the map that a unit's work grows with: of its output; of its input where it
    pools.
    """
    _, height, width = layer.in_shape if layer.out_shape[1:] == (1, 1) else layer.out_shape
    return height * width


def merged(entries: Iterable[Entry]) -> Entry:
    """Return several figures of one unit as one: means weighted by how often each was measured."""
    several = tuple(entries)
    if len(several) == 1:
        return several[0]
    count = sum(entry.count for entry in several)
    latency_s = sum(entry.latency_s * entry.count for entry in several) / count
    joules = [entry.energy_j * entry.count for entry in several if entry.energy_j is not None]
    energy_j = sum(joules) / count if len(joules) == len(several) else None
    spreads = [entry.std_s**2 * entry.count for entry in several if entry.std_s is not None]
    std_s = math.sqrt(sum(spreads) / count) if len(spreads) == len(several) else None
    return Entry(latency_s, std_s, count, energy_j)


def import_table(path: Path, *, resolution: int | None = None) -> DeviceProfile:
    """Return a published table as an ordinary profile, for `save_profile` and the `recorded` device.

    Raises:
        TrilobitError: see `read_table`.
    """
    return read_table(path, resolution=resolution).profile()


def read_table(path: Path, *, resolution: int | None = None) -> PublishedTable:
    """Read a published table of any known form.

    Args:
        resolution: take the figures of this input resolution only. Without it a unit that was measured at
            several (a classifier, say) has the mean of all.

    Raises:
        TrilobitError: no such file, of no known form, or with an entry that is no figure.
    """
    path = Path(path)
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrilobitError(f"{path}: cannot be read ({error.strerror}); give a published table") from None
    if data[:2] == b"PK":
        _refuse_resolution(path, resolution, "Bit Fusion")
        return _bit_fusion(path, name, data)
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not document:
        raise TrilobitError(f"{path}: not a published table; known: {FORMS}")
    if all(re.fullmatch(r"\d+", key) for key in document):
        return _once_for_all(path, name, document, resolution)
    _refuse_resolution(path, resolution, "ProxylessNAS")
    return PublishedTable(name, PROXYLESS, dict(_entries(path, document, by_ratio=True)))


def _refuse_resolution(path: Path, resolution: int | None, form: str) -> None:
    if resolution is not None:
        raise TrilobitError(f"{path}: a {form} table is of one resolution; leave out {resolution}")


# -- JSON ----------------------------------------------------------------


def _once_for_all(
    path: Path, name: str, document: Mapping[str, Any], resolution: int | None
) -> PublishedTable:
    if resolution is not None and str(resolution) not in document:
        resolutions = ", ".join(sorted(document, key=int))
        raise TrilobitError(f"{path}: resolution {resolution} is not in the table; it has {resolutions}")
    by_layer: dict[Layer, list[Entry]] = {}
    for size, units in document.items():
        if not isinstance(units, dict) or not units:
            raise TrilobitError(f"{path}: resolution {size} holds no entries")
        for layer, entry in _entries(path, units, by_ratio=False):
            if resolution in (None, int(size)):
                by_layer.setdefault(layer, []).append(entry)
    return PublishedTable(name, ONCE_FOR_ALL, {layer: merged(several) for layer, several in by_layer.items()})


def _entries(path: Path, units: Mapping[str, Any], *, by_ratio: bool) -> Iterator[tuple[Layer, Entry]]:
    for key, value in units.items():
        yield _unit(path, key, by_ratio=by_ratio), _entry(path, key, value)


def _entry(path: Path, key: str, value: Any) -> Entry:
    """Return an entry of {mean ms, count, std ms or var ms^2}."""
    fields = {"mean", "count", "std", "var"}
    if not isinstance(value, dict) or not {"mean", "count"} <= set(value) <= fields:
        raise TrilobitError(f"{path}: entry {key!r} is {value!r}; it must be mean, count, and std or var")
    for part in value:
        _check(path, f"entry {key!r}: {part}", value[part], positive=part in ("mean", "count"))
    if value["count"] != int(value["count"]):
        raise TrilobitError(f"{path}: entry {key!r}: count is {value['count']!r}; it must be a whole number")
    std_ms = value["std"] if "std" in value else math.sqrt(value["var"]) if "var" in value else None
    return Entry(value["mean"] * MILLI, None if std_ms is None else std_ms * MILLI, int(value["count"]))


def _check(path: Path, what: str, value: Any, *, positive: bool = True) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LARGEST
    if not number or (positive and value == 0):
        rule = "above 0" if positive else "of at least 0"
        raise TrilobitError(f"{path}: {what} is {value!r}; it must be a finite number {rule}")


def _unit(path: Path, key: str, *, by_ratio: bool) -> Layer:
    """Return the unit that an entry names; `by_ratio`: ProxylessNAS, where `expand` is a factor."""
    match = _KEY.fullmatch(key)
    whole = match is not None and (match["op"] == "expanded_conv") == (match["kernel"] is not None)
    make = _UNITS.get(match["op"]) if match is not None and whole else None
    if match is None or make is None or ((match["kernel"] is not None) and by_ratio != (match["se"] is None)):
        raise TrilobitError(f"{path}: unknown entry {key!r}; known: {', '.join(_UNITS)} with their sizes")
    height, width, channels = map(int, match["source"].split("x"))
    *map_size, out_channels = map(int, match["target"].split("x"))
    try:
        layer = make(match, (channels, height, width), out_channels, by_ratio)
    except (TrilobitError, ZeroDivisionError):
        raise TrilobitError(f"{path}: entry {key!r} has a size of 0") from None
    if map_size and layer.out_shape[1:] != tuple(map_size):
        target = "x".join(map(str, map_size))
        raise TrilobitError(
            f"{path}: entry {key!r} says {target}, but its stride gives {layer.out_shape[1:]}"
        )
    return layer


Shape = tuple[int, int, int]


def _block(match: re.Match[str], shape: Shape, out_channels: int, by_ratio: bool) -> Layer:
    expanded = int(match["expand"]) * (shape[0] if by_ratio else 1)
    activation = "relu6" if by_ratio else "hswish" if match["hs"] == "1" else "relu"
    return map_layer(
        "mbconv",
        shape,
        out_channels,
        int(match["kernel"]),
        int(match["stride"]),
        activation=activation,
        expanded=expanded,
        squeeze=match["se"] == "1",
        residual=match["skip"] == "1",
    )


def _stem(match: re.Match[str], shape: Shape, out_channels: int, by_ratio: bool) -> Layer:
    stride = math.ceil(shape[1] / int(match["target"].split("x")[0]))
    return map_layer("stem", shape, out_channels, STEM_KERNEL, stride, activation=_outer(by_ratio))


def _pointwise(match: re.Match[str], shape: Shape, out_channels: int, by_ratio: bool) -> Layer:
    return map_layer("conv", shape, out_channels, activation=_outer(by_ratio))


def _outer(by_ratio: bool) -> str:
    """Return the activation outside the blocks, which no entry names: that of MobileNetV3, or of
    MobileNetV2.
    """
    return "relu6" if by_ratio else "hswish"


def _pool(match: re.Match[str], shape: Shape, out_channels: int, by_ratio: bool) -> Layer:
    return map_layer("pool", shape, out_channels)


def _linear(match: re.Match[str], shape: Shape, out_channels: int, by_ratio: bool) -> Layer:
    """Return the last layer. ProxylessNAS's reads the whole map: pooling is part of it."""
    return map_layer("linear", shape, out_channels)


_UNITS: Mapping[str, Callable[[re.Match[str], Shape, int, bool], Layer]] = {
    "Conv": _stem,
    "expanded_conv": _block,
    "Conv_1": _pointwise,
    "AvgPool2D": _pool,
    "Conv_2": _pointwise,
    "Logits": _linear,
}


# -- arrays --------------------------------------------------------------


def _bit_fusion(path: Path, name: str, data: bytes) -> PublishedTable:
    """Return the table of `rows` (n, 11) of `COLUMNS`; every other array is a constant part: [milliseconds,
    millijoules].
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TrilobitError(f"{path}: not a readable file of arrays ({error})") from None
    rows = arrays.pop("rows", np.zeros(0))
    if rows.ndim != 2 or rows.shape[1] != len(COLUMNS) or not len(rows) or rows.dtype.kind not in "fiu":
        raise TrilobitError(f"{path}: no array `rows` of {len(COLUMNS)} columns: {', '.join(COLUMNS)}")
    entries = {}
    for index, row in enumerate(rows.tolist()):
        entries[_row_layer(path, index, row)] = Entry(row[9] * MILLI, energy_j=row[10] * MILLI)
    constants = {}
    for key, value in arrays.items():
        if value.shape != (2,) or value.dtype.kind not in "fiu":
            raise TrilobitError(f"{path}: unknown array {key!r}; a constant is [milliseconds, millijoules]")
        latency_ms, energy_mj = value.tolist()
        for figure in (latency_ms, energy_mj):
            _check(path, f"constant {key!r}", figure)
        constants[key] = Entry(latency_ms * MILLI, energy_j=energy_mj * MILLI)
    parts = {layer: constants[key] for key, layer in CONSTANTS.items() if key in constants}
    table = PublishedTable(name, BIT_FUSION, entries, constants, knows_activations=False, parts=parts)
    return replace(table, uncounted=is_uncounted) if len(parts) == len(CONSTANTS) else table


def _row_layer(path: Path, index: int, row: list[float]) -> Layer:
    for column, value in zip(COLUMNS, row, strict=True):
        _check(path, f"row {index}: {column}", value, positive=column != "padding")
    sizes = [int(value) for value in row[:9]]
    channels, out_channels, size, kernel, stride, padding, groups, weight, activation = sizes
    if sizes != row[:9] or padding != kernel // 2 or groups not in (1, channels):
        raise TrilobitError(
            f"{path}: row {index} is no unit: {row[:9]}; sizes are whole numbers, padding is kernel // 2, "
            "groups 1 or the input channels"
        )
    shape, formats = (channels, size, size), (f"int{weight}", f"int{activation}")
    return map_layer("conv", shape, out_channels, kernel, stride, groups, "none", *formats)


# -- between sizes -------------------------------------------------------


def _sizeless(layer: Layer) -> Layer:
    """Return what makes a unit the same at another resolution."""
    side = 1 if layer.in_shape[1:] == (1, 1) else 2  # a vector is no small map
    return at_size(layer, side, side)


def interpolated(curve: Mapping[int, Entry], positions: int) -> Answer:
    sizes, entries = np.array(list(curve), np.float64), list(curve.values())
    latency_s = float(np.interp(positions, sizes, [entry.latency_s for entry in entries]))
    joules = [entry.energy_j for entry in entries if entry.energy_j is not None]
    energy_j = float(np.interp(positions, sizes, joules)) if len(joules) == len(entries) else None
    return Answer("interpolated", latency_s, energy_j)
