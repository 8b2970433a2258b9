"""Samples that a function of the user gives: `module:function`, imported because the user named it."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from supernet.data.array_samples import LABELS, array_samples
from supernet.data.input_spec import InputSpec, shape_text
from supernet.data.samples import Samples
from supernet.data.user_function import told, user_function

Array = NDArray[Any]


def read_function(name: str, specs: Sequence[InputSpec], *, most: int) -> Samples:
    """Return at most `most` samples of what a function gives: an array per input by name, with samples along
    the first axis, or an iterable of samples or batches, each such a mapping, a sequence with an array per
    input (and a label), or, for a single input, an array.

    Raises:
        TrilobitError: it raises, gives nothing, or something that the network cannot read.
    """
    function = user_function(name)
    with told(name):
        given = function()
    if isinstance(given, Mapping):
        return array_samples(name, {str(key): as_array(name, value) for key, value in given.items()}, specs)
    if hasattr(given, "shape") and not isinstance(given, Iterator):
        return array_samples(name, {"": as_array(name, given)}, specs)
    return _from_items(name, given, specs, most)


def as_array(name: str, value: Any) -> Array:
    """Return what a function gave as an array.

    Raises:
        TrilobitError: it is none of numbers.
    """
    with told(name):
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "fiub":
        raise TrilobitError(f"{name}: gave {type(value).__name__} where an array of numbers is needed")
    return array


def _from_items(name: str, given: Any, specs: Sequence[InputSpec], most: int) -> Samples:
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise TrilobitError(
            f"{name}: gave {type(given).__name__}; give an iterable of samples, each a dict with an "
            "array per input"
        )
    parts: dict[str, list[Array]] = {}
    count = 0
    with told(name):
        for item in itertools.islice(given, most):
            batch = {key: as_array(name, value) for key, value in _named(name, item, specs).items()}
            count += _append(name, parts, batch, specs)
            if count >= most:
                break
    if not parts:
        raise TrilobitError(f"{name}: gave no samples")
    return array_samples(name, {key: _joined(name, key, arrays) for key, arrays in parts.items()}, specs)


def _named(name: str, item: Any, specs: Sequence[InputSpec]) -> dict[str, Any]:
    """Return what one item of an iterable is, by name of the input."""
    if isinstance(item, Mapping):
        return {str(key): value for key, value in item.items()}
    inputs = [spec.name for spec in specs]
    if isinstance(item, tuple | list) and len(item) in (len(inputs), len(inputs) + 1):
        return dict(zip((*inputs, LABELS[0]), item, strict=False))
    if len(inputs) == 1:
        return {inputs[0]: item}
    raise TrilobitError(
        f"{name}: gave {type(item).__name__} for a sample; give a dict with an array for each of "
        f"{', '.join(inputs)}"
    )


def _append(
    name: str, parts: dict[str, list[Array]], item: Mapping[str, Array], specs: Sequence[InputSpec]
) -> int:
    """Add an item, a sample or a batch, to what came before; return how many samples it has."""
    by_name = {spec.name: spec for spec in specs}
    if parts and parts.keys() != item.keys():
        raise TrilobitError(
            f"{name}: the first sample has {', '.join(parts)}, and another {', '.join(item) or 'nothing'}"
        )
    count = 0
    for key, array in item.items():
        spec = by_name.get(key)
        rank = len(spec.shape) if spec else None
        if spec and spec.batched and array.ndim == rank:
            rows = array[:, None]  # the batch's samples
        elif spec is None and array.ndim == 1:
            rows = array
        else:
            rows = array[None, None] if spec and spec.batched and rank == array.ndim + 1 else array[None]
        parts.setdefault(key, []).append(rows)
        count = max(count, len(rows))
    return count


def _joined(name: str, key: str, arrays: Sequence[Array]) -> Array:
    shapes = sorted({array.shape[1:] for array in arrays})
    if len(shapes) > 1:
        raise TrilobitError(
            f"{name}: samples of {key} have {len(shapes)} shapes, {shape_text(shapes[0])} to "
            f"{shape_text(shapes[-1])}; pad them to one"
        )
    return np.concatenate(arrays)
