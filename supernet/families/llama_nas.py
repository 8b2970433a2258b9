"""The space of LLaMA-NAS (Sarah et al. 2024, arXiv:2405.18377): LLaMA2-7B with 24, 28 or 32 of its blocks,
and in each of them the whole feed-forward part or the first half of it. It is there to be counted and to map
networks by; a supernet of it would take 27 GB.
"""

from collections.abc import Sequence

import numpy as np

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import FP32
from supernet.families.decoder import DecoderFamily
from supernet.families.family import DEFAULT_FORMATS
from supernet.space.space import Candidate

VOCABULARY, CONTEXT = 32_000, 4096


def llama_nas(
    *,
    in_channels: int = VOCABULARY,
    classes: int = VOCABULARY,
    formats: tuple[str, ...] = DEFAULT_FORMATS,
) -> DecoderFamily:
    """Return LLaMA-NAS's networks, as they read all 4096 tokens."""
    return DecoderFamily(
        name="llama-nas",
        lengths=(CONTEXT,),
        widths=(4096,),
        depths=(24, 28, 32),
        heads=(32,),
        groups=(32,),
        head_width=128,
        hidden=(5504, 11_008),
        in_channels=in_channels,
        classes=classes,
        formats=formats,
        positions=CONTEXT,
        caches=(FP32,),
    )


def from_published(family: DecoderFamily, hidden: Sequence[int]) -> Candidate:
    """Return the network of these intermediate sizes, one for each of its blocks, in the first format.

    Raises:
        TrilobitError: the space has not so many blocks, or not that size.
    """
    if len(hidden) not in family.depths or not set(hidden) <= set(family.hidden):
        raise TrilobitError(
            f"{len(hidden)} blocks of sizes {sorted(set(hidden))}: {family.name} has "
            f"{_listed(family.depths)} blocks of {_listed(family.hidden)}"
        )
    space = family.space()
    chosen = {"s0.depth": len(hidden), **{f"s0.b{b}.hidden": size for b, size in enumerate(hidden)}}
    genes = [
        choice.options.index(chosen[choice.name]) if choice.name in chosen else 0 for choice in space.choices
    ]
    return space.candidate(np.array(genes, np.int16))


def to_published(family: DecoderFamily, candidate: Candidate) -> tuple[int, ...]:
    """Return the intermediate size of each block of a network."""
    blocks = family.arch(candidate).stages[0]
    return tuple(int(block["hidden"]) for block in blocks)


def _listed(options: Sequence[int]) -> str:
    return " or ".join(map(str, options))
