"""How a device adds the products of an integer layer: it decides which 8-bit weights are computed exactly.

Kernels for processors with neither VNNI nor dot products multiply unsigned activations with signed weights in
pairs, and add the two products of a pair in 16 bits, with saturation (vpmaddubsw): two products of up to
255 * 127 do not fit. With weight codes of 7 bits they do, and unsigned weights have other kernels.
"""

from enum import StrEnum

WIDEST_EXACT = 64  # the largest weight code of which any pair of products fits: 2 * 255 * 64 < 2^15


class IntegerSums(StrEnum):
    """What the unsigned x signed kernels of a device do with sums that leave 16 bits."""

    EXACT = "exact"
    SATURATING = "saturating"
    UNKNOWN = "unknown"  # a profile from before this was asked

    @property
    def reduced(self) -> bool:
        """Whether weights of 8 bits need codes of 7, because sums may saturate."""
        return self is not IntegerSums.EXACT

    @property
    def identity(self) -> dict[str, str]:
        """What it adds to the identity of everything that depends on rounded weights: nothing where they have
        their whole range, so that what was made before this was asked stays valid.
        """
        return {"int8": "7 bits"} if self.reduced else {}
