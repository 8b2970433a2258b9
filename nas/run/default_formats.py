"""Which number formats a run searches where its configuration names none."""

from dataclasses import replace

from hw_profiles.runtimes.device import Device
from supernet.families.family import Family
from supernet.space.space import SearchSpace

REDUCED, EXACT = "int8", "int8-exact"  # the second has all 8 bits where the first has 7


def with_exact(family: Family, backend: Device) -> tuple[str, ...] | None:
    """Return the formats of a family with its own ones and int8-exact, for a device on which int8 has 7 bits:
    whether the eighth is worth its time is for the search to decide, layer by layer.

    Returns:
        None, which stands for the family's own, where it offers no int8 for every layer, or the device cannot
        run int8-exact: one that was recorded without it, say.
    """
    formats = formats_of_layers(family.space())
    if REDUCED not in formats or EXACT in formats:
        return None
    layers = family.workload(family.corners()[f"largest/{REDUCED}"]).layers
    exact = (replace(layer, weight_format=EXACT) for layer in layers if layer.weight_format == REDUCED)
    return (*formats, EXACT) if all(map(backend.supports, exact)) else None


def formats_of_layers(space: SearchSpace) -> tuple[str, ...]:
    """Return the formats that every layer can choose from; none where layers differ in that."""
    offered = {tuple(map(str, space.choices[column].options)) for column in space.format_columns}
    return offered.pop() if len(offered) == 1 else ()
