"""Configurations of the published once-for-all ResNet50 as candidates of `ofa-resnet50`, and back.

The joint data of architectures and formats (SimQ-NAS, DyNAS-T) have 61 formats in a row, one for each
convolution that the supernet has. They are handed out to the convolutions that a subnet has in the order of
its modules, after those of missing blocks are left out: the first convolution of the stem, the residual one
where it is there, the last one (so that the second entry means another layer without the residual one, and
the third is the one left out), then block by block `conv1`, `conv2`, `conv3` and, in the first of a stage,
the shortcut's. The classifier has none: it stayed in fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hw_profiles.errors import TrilobitError
from supernet.families.ofa_resnet import (
    BASE_DEPTHS,
    EXTRA_DEPTHS,
    MULTIPLIERS,
    STEM,
    STEM_INNER,
    OfaResNetFamily,
    parts,
)
from supernet.space.space import Candidate, Option

BITS = {8: "int8", 32: "fp32"}
STEM_IS_DEEP = 2  # what the first depth must be for the stem to have its residual convolution
BLOCKS = tuple((s, b) for s, base in enumerate(BASE_DEPTHS) for b in range(base + max(EXTRA_DEPTHS)))

ENTRIES = len(STEM) + sum(len(parts(b)) for _, b in BLOCKS)


@dataclass(frozen=True)
class PublishedConfig:
    """A subnet as once-for-all's code and the joint data write it.

    Attributes:
        d: (5,) of the stem, 2 with its residual convolution and 0 or 1 without; of each stage, blocks beyond
            the fewest.
        e: (18,) middle channels of each block as a share of its output channels; 0 where there is no block,
            read as anything.
        w: (6,) index into the width multipliers: of the stem's first convolutions, of its last, of each
            stage.
        q_bits: (61,) 8 or 32 for each convolution; 0 where there is none, read as anything.
    """

    d: tuple[int, ...]
    e: tuple[float, ...]
    w: tuple[int, ...]
    q_bits: tuple[int, ...]


def living_layers(d: Sequence[int]) -> tuple[str | None, ...]:
    """(61,) our name of the convolution that each entry of `q_bits` is for, by the depths `d`; None where the
    subnet has none.
    """
    stem = STEM if d[0] == STEM_IS_DEEP else (STEM[0], STEM[2], None)
    names: list[str | None] = list(stem)
    for s, b in BLOCKS:
        living = b < BASE_DEPTHS[s] + d[1 + s]
        names += [f"s{s}.b{b}.{part}" if living else None for part in parts(b)]
    return tuple(names)


def from_published(family: OfaResNetFamily, config: PublishedConfig, *, resolution: int = 224) -> Candidate:
    """The candidate that computes what the published subnet computes.

    Raises:
        TrilobitError: a number is none of those that the configuration can have, there are too many or too
            few, or the family lacks a format.
    """
    _check(config)
    inner, width, *widths = config.w
    decisions: dict[str, Option] = {
        "resolution": resolution,
        "stem.depth": int(config.d[0] == STEM_IS_DEEP),
        "stem.inner": STEM_INNER[inner],
        "stem.width": family.stem.widths[width],
        "classifier.format": BITS[32],
    }
    for s, (extra, choice) in enumerate(zip(config.d[1:], widths, strict=True)):
        decisions |= {f"s{s}.depth": BASE_DEPTHS[s] + extra, f"s{s}.width": family.stages[s].widths[choice]}
    for (s, b), ratio in zip(BLOCKS, config.e, strict=True):
        if b < int(decisions[f"s{s}.depth"]):
            decisions[f"s{s}.b{b}.expand"] = round(100 * ratio)
    for name, bits in zip(living_layers(config.d), config.q_bits, strict=True):
        if name is not None:
            if bits not in BITS:
                raise TrilobitError(
                    f"{name}: {bits} bits; published subnets have {' or '.join(map(str, BITS))}"
                )
            decisions[f"{name}.format"] = BITS[bits]
    return family.space().encode(decisions)


def to_published(family: OfaResNetFamily, candidate: Candidate) -> PublishedConfig:
    """The published subnet that computes what the candidate computes, but for its classifier's format and its
    resolution. Of several that are one network it is the one with the smallest numbers.

    Raises:
        TrilobitError: a layer has another format than int8 or fp32.
    """
    decisions = family.space().decode(candidate)
    depths = [int(decisions[f"s{s}.depth"]) - base for s, base in enumerate(BASE_DEPTHS)]
    d = (STEM_IS_DEEP * int(decisions["stem.depth"]), *depths)
    bits = {fmt: number for number, fmt in BITS.items()}
    formats = [decisions[f"{name}.format"] if name else None for name in living_layers(d)]
    if unknown := {str(fmt) for fmt in formats if fmt} - set(bits):
        raise TrilobitError(f"published subnets are in int8 and fp32, not in {', '.join(sorted(unknown))}")
    return PublishedConfig(
        d=d,
        e=tuple(int(decisions.get(f"s{s}.b{b}.expand", 0)) / 100 for s, b in BLOCKS),
        w=(
            STEM_INNER.index(int(decisions["stem.inner"])),
            family.stem.widths.index(int(decisions["stem.width"])),
            *(family.stages[s].widths.index(int(decisions[f"s{s}.width"])) for s in range(len(BASE_DEPTHS))),
        ),
        q_bits=tuple(bits[str(fmt)] if fmt else 0 for fmt in formats),
    )


def _check(config: PublishedConfig) -> None:
    rows: tuple[tuple[str, Sequence[float], int, tuple[int, ...]], ...] = (
        ("d", config.d, 1 + len(BASE_DEPTHS), EXTRA_DEPTHS),
        ("e", config.e, len(BLOCKS), ()),
        ("w", config.w, 2 + len(BASE_DEPTHS), tuple(range(len(MULTIPLIERS)))),
        ("q_bits", config.q_bits, ENTRIES, ()),
    )
    for name, values, count, allowed in rows:
        if len(values) != count or (allowed and not set(values) <= set(allowed)):
            among = f", each of {allowed}" if allowed else ""
            raise TrilobitError(f"{name} of a published subnet is {count} numbers{among}; got {list(values)}")
