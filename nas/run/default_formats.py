"""Which number formats a run searches where its configuration names none."""

from dataclasses import replace

from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.runtimes.device import Device
from supernet.families.family import Family
from supernet.formats.loading import load_format
from supernet.registry import FORMATS
from supernet.space.space import SearchSpace


def with_exact(family: Family, device: Device) -> tuple[str, ...] | None:
    """Return the formats of a family with its own ones and int8-exact, for a device on which int8 has 7 bits:
    whether the eighth is worth its time is for the search to decide, layer by layer.

    Returns:
        None, which stands for the family's own, where it offers no int8 for every layer, or the device cannot
        run int8-exact: one that was recorded without it, say.
    """
    formats = formats_of_layers(family.space())
    pairs = {fmt: unreduced(fmt) for fmt in formats}
    missing = {fmt: exact for fmt, exact in pairs.items() if exact and exact not in formats}
    for fmt, exact in missing.items():
        layers = family.workload(family.extreme("largest", fmt)).layers
        kept = (replace(layer, weight_format=exact) for layer in layers if layer.weight_format == fmt)
        if not all(map(device.supports, kept)):
            return None
    return (*formats, *missing.values()) if missing else None


def unreduced(fmt: str) -> str | None:
    """Return the format that has all codes where integer sums reduce those of `fmt`; None where they do not.

    >>> unreduced("int8"), unreduced("int4")
    ('int8-exact', None)
    """
    if fmt not in FORMATS:  # a pair of formats
        return None
    weight = load_format(fmt).weight
    if weight.made_for(IntegerSums.UNKNOWN) == weight:
        return None
    unsigned = replace(weight, offset=2 ** (weight.bits - 1))
    return next((name for name in FORMATS if load_format(name).weight == unsigned), None)


def formats_of_layers(space: SearchSpace) -> tuple[str, ...]:
    """Return the formats that every layer can choose from; none where layers differ in that."""
    options = {tuple(map(str, space.choices[column].options)) for column in space.format_columns}
    return options.pop() if len(options) == 1 else ()
