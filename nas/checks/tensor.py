"""What a network says of one of its inputs or outputs."""

from dataclasses import dataclass

Dimension = int | str  # a size, or the name of an open one; empty where it has none


@dataclass(frozen=True)
class Tensor:
    """An input or an output.

    Attributes:
        name: in the file.
        dtype: numpy's name of its element type.
        shape: its sizes; open ones are names.
    """

    name: str
    dtype: str
    shape: tuple[Dimension, ...]

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"{self.name}: {'x'.join(str(size) or '?' for size in self.shape) or '()'} {self.dtype}"
