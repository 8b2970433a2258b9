"""Arrays as samples of a network's inputs: what their axes are, and whether their types can be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from supernet.data.input_spec import InputSpec, require_bindable, shape_text
from supernet.data.samples import Samples

LABELS = ("labels", "y")  # names of an array of right answers, unless an input is called so
Array = NDArray[Any]


def array_samples(source: str, arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> Samples:
    """Return an array per input, each with or without the batch of one, as samples. Inputs that are fixed
    need none.

    Args:
        source: what to call it in messages.
        arrays: by name of the input; where there is one input that is not fixed, and one array, by any name.
            `labels` or `y` are right answers (n,).

    Raises:
        TrilobitError: an input without array, or an array of another shape or type than the network reads.
    """
    labels, others = _split_labels(arrays, specs)
    others |= {
        spec.name: fixed_array(spec) for spec in specs if spec.fixed is not None and spec.name not in others
    }
    matched, notes = _matched(source, others, specs)
    rows = {spec.name: sample_rows(source, matched[spec.name], spec) for spec in specs}
    count = _count(source, rows)
    inputs, casts = {}, []
    for spec in specs:
        values, note = _cast(source, rows[spec.name].values, spec)
        require_fixed(source, values, spec)
        shape = (count, *values.shape[1:])
        inputs[spec.name] = np.broadcast_to(values, shape) if rows[spec.name].shared else values
        casts.append(note)
    require_bindable(tuple(specs), {name: array.shape[1:] for name, array in inputs.items()})
    shapes = ", ".join(f"{name} {shape_text(array.shape[1:])}" for name, array in inputs.items())
    notes = [f"{count:,} samples of {shapes}", *notes, *filter(None, casts)]
    if labels is not None:
        notes.append("with labels")
    answers = None if labels is None else _checked_labels(source, labels, count)
    return Samples(inputs, answers, origin="; ".join(notes))


def _split_labels(
    arrays: Mapping[str, Array], specs: Sequence[InputSpec]
) -> tuple[Array | None, dict[str, Array]]:
    inputs = {spec.name for spec in specs}
    named = [name for name in LABELS if name in arrays and name not in inputs]
    others = {name: array for name, array in arrays.items() if name not in named}
    return (arrays[named[0]] if named else None), others


def _matched(
    source: str, arrays: Mapping[str, Array], specs: Sequence[InputSpec]
) -> tuple[dict[str, Array], list[str]]:
    """Return an array per input, and what is to be said of names."""
    missing = [spec for spec in specs if spec.name not in arrays]
    unused = sorted(set(arrays) - {spec.name for spec in specs})
    if len(unused) == 1 and len(missing) == 1 == sum(spec.fixed is None for spec in specs):
        (spec,), (name,) = missing, unused
        return {**arrays, spec.name: arrays[name]}, [f"array {name!r} is taken for input {spec.name!r}"]
    if missing:
        has = ", ".join(arrays) or "none"
        raise TrilobitError(
            f"{source}: no array for input {missing[0]}; arrays: {has}{did_you_mean(missing[0].name, arrays)}"
        )
    return dict(arrays), [f"not used: {', '.join(unused)}"] if unused else []


def fixed_array(spec: InputSpec) -> Array:
    """Return what an input is that always has one value: one for all samples."""
    assert spec.fixed is not None
    return np.full((1,) * (len(spec.shape) - 1), spec.fixed).astype(spec.dtype)


def require_fixed(source: str, values: Array, spec: InputSpec) -> None:
    """Raise unless an input has in all examples the value that it is fixed to.

    Raises:
        TrilobitError: it has another.
    """
    if (
        spec.fixed is not None
        and (others := values[values != np.array(spec.fixed).astype(values.dtype)]).size
    ):
        raise TrilobitError(
            f"{source}: input {spec.name} is {others[0]} in some examples, and is fixed to {spec.fixed}; fix "
            "it to what the examples have (--fix), or leave those out"
        )


@dataclass(frozen=True)
class Rows:
    """Samples of one input.

    Attributes:
        values: (n, ...), or (1, ...) where all samples share it.
        shared: whether it is one array for all samples, such as a sample rate.
    """

    values: Array
    shared: bool = False


def sample_rows(source: str, array: Array, spec: InputSpec) -> Rows:
    """Return an array with samples along its first axis, each of the input's own rank.

    An array of one dimension more than the input has samples along its first; one of as many has them along
    the batch; and an array that is the input's own shape, and no batch, is the same for all samples.

    Raises:
        TrilobitError: another shape than the input's.
    """
    rank = len(spec.shape)
    rows = None
    if array.ndim == rank + 1:
        rows = Rows(array)
    elif array.ndim == rank and spec.batched:
        rows = Rows(array[:, None])
    elif array.ndim == rank and rank and not spec.admits(array.shape):
        size = spec.shape[0]  # of a batch that is fixed, or of what is no batch
        if isinstance(size, int) and len(array) % size == 0 and len(array) > size:
            rows = Rows(array.reshape(-1, size, *array.shape[1:]))
    elif array.ndim == rank:
        rows = Rows(array[None], shared=True)
    elif array.ndim == rank - 1 and spec.batched:
        rows = Rows(array[None, None], shared=True)
    if rows is None or not len(rows.values) or not spec.admits(rows.values.shape[1:]):
        raise TrilobitError(
            f"{source}: input {spec} was given {shape_text(array.shape)} {array.dtype}; wanted "
            f"{shape_text(('n', *(spec.shape[1:] if spec.batched else spec.shape)))}, n samples"
        )
    return rows


def _count(source: str, rows: Mapping[str, Rows]) -> int:
    counts = {name: len(row.values) for name, row in rows.items() if not row.shared}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise TrilobitError(f"{source}: inputs have different numbers of samples: {listed}")
    return next(iter(counts.values()), 1)


def _cast(source: str, array: Array, spec: InputSpec) -> tuple[Array, str]:
    """Return an array of the input's type, and what is to be said of it.

    Raises:
        TrilobitError: no numbers, not all finite, or numbers that the type cannot hold.
    """
    target = np.dtype(spec.dtype)
    if array.dtype.kind not in "fiub" or target.kind not in "fiub":
        raise TrilobitError(f"{source}: input {spec} was given {array.dtype}, which it cannot read")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
        raise TrilobitError(f"{source}: input {spec.name} has NaN or infinite values, first in sample {row}")
    if array.dtype == target:
        return array, ""
    with np.errstate(over="ignore", invalid="ignore"):
        values = array.astype(target)
    floating = array.dtype.kind == "f" and target.kind == "f"
    exact = np.isfinite(values).all() if floating else np.array_equal(values.astype(array.dtype), array)
    if not exact or (target.kind == "b" and array.size and (array.min() < 0 or array.max() > 1)):
        lowest, highest = array.min(), array.max()
        raise TrilobitError(
            f"{source}: input {spec} was given {array.dtype} from {lowest:g} to {highest:g}, which {target} "
            "cannot hold; convert it yourself"
        )
    if floating:
        return values, ""
    return (
        values,
        f"{spec.name}: {array.dtype} {array.min():g}..{array.max():g} are read as {target} as they are",
    )


def _checked_labels(source: str, labels: Array, count: int) -> NDArray[np.int64]:
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.shape != (count,):
        raise TrilobitError(
            f"{source}: labels are {shape_text(labels.shape)}; wanted {count}, one per sample"
        )
    whole = flat.dtype.kind in "iub" or (flat.dtype.kind == "f" and np.array_equal(flat, np.floor(flat)))
    if not whole or (count and flat.min() < 0):
        raise TrilobitError(
            f"{source}: labels {shown(flat[:3].tolist())}: classes count from 0, in whole numbers"
        )
    return flat.astype(np.int64)
