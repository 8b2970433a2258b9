"""Where the windows of a convolution or of pooling lie, and which of them LiteRT has a word for."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Geometry:
    """Where windows lie.

    Attributes:
        kernel, strides, dilations: (down, across).
        pads: (top, left, bottom, right), as far as windows reach.
        size: (height, width) of what is read.
        outputs: (rows, columns) of windows.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    size: tuple[int, int]
    outputs: tuple[int, int]

    @property
    def same(self) -> bool:
        """Whether that is what files mean by `SAME`: steps of one pixel, and as many added on each side."""
        top, left, bottom, right = self.pads
        spans = [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)]
        return (
            self.strides == (1, 1)
            and [top + bottom, left + right] == spans
            and (top, left) == (bottom, right)
        )

    def grown(self) -> tuple[int, int] | None:
        """Return by how many rows and columns of zeros at its end a kernel must grow for `SAME` to mean these
        windows: it puts one pixel of an odd number of them behind. None where that does not do.
        """
        rows, columns = map(self._added, range(2))
        return None if rows is None or columns is None else (rows, columns)

    def _added(self, axis: int) -> int | None:
        size, step, dilation = self.size[axis], self.strides[axis], self.dilations[axis]
        if self.outputs[axis] != -(-size // step):
            return None
        for more in (0, 1):
            span = (self.kernel[axis] + more - 1) * dilation + 1
            whole = max(0, (self.outputs[axis] - 1) * step + span - size)
            if whole // 2 == self.pads[axis]:
                return more
        return None

    def steps(self) -> dict[str, Any]:
        """Return strides and dilations as options."""
        return {
            "strideH": self.strides[0],
            "strideW": self.strides[1],
            "dilationHFactor": self.dilations[0],
            "dilationWFactor": self.dilations[1],
        }
