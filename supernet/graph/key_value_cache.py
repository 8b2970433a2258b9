"""Keys and values as a cache keeps them: attention computed of what is kept, as files do."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hw_profiles.graph.cache import has_past, in_real_numbers
from hw_profiles.graph.formats import FP32, QuantParams, is_integer
from hw_profiles.graph.layer import Layer
from supernet.graph.operations import computed


def attended_through_cache(
    layer: Layer, x: Sequence[Tensor], kept: Sequence[QuantParams | None]
) -> Sequence[Tensor]:
    """Return what an attention gives that reads keys and values as its cache keeps them, and the grown cache
    where it gives that.

    Args:
        x: queries, keys, values, a mask where there is one, and past keys and values as they are stored.
        kept: how keys and values are kept as codes; None where they are numbers.
    """
    keys, values = (restored(stored(y, layer, by), by) for y, by in zip(x[1:3], kept, strict=True))
    past = [restored(y, by) for y, by in zip(x[-2:], kept, strict=True)] if has_past(layer) else []
    others = x[3 : len(x) - len(past)]
    mixed, *grown = computed(in_real_numbers(layer), [x[0], keys, values, *others, *past])
    return [mixed, *(stored(y, layer, by) for y, by in zip(grown, kept, strict=False))]


def stored(y: Tensor, layer: Layer, by: QuantParams | None) -> Tensor:
    """Return real numbers as they are kept: codes of 8 bits, half precision, or as they are."""
    name = layer.values.text("cache")
    if is_integer(name):
        assert by is not None
        return torch.clamp(torch.round(y / by.scale), -by.largest - 1, by.largest).to(torch.int8)
    return y if name == FP32 else y.half()


def restored(y: Tensor, by: QuantParams | None) -> Tensor:
    """Return the real numbers of what is kept."""
    return y.float() if by is None else y.float() * by.scale
