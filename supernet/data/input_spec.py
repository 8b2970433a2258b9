"""`InputSpec`: what a network says of one of its inputs."""

from dataclasses import dataclass

from hw_profiles.errors import TrilobitError

Dimension = int | str  # a size, or the name of an open dimension; empty where it has none


@dataclass(frozen=True)
class InputSpec:
    """One input of a network.

    Attributes:
        name: in the file.
        shape: its dimensions, the batch included.
        dtype: numpy's name of its element type.
        fixed: the number that it always is; None where examples say what it is.
    """

    name: str
    shape: tuple[Dimension, ...]
    dtype: str
    fixed: float | None = None

    @property
    def batched(self) -> bool:
        """Whether its first dimension may be a batch of one."""
        return bool(self.shape) and (isinstance(self.shape[0], str) or self.shape[0] == 1)

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array of this shape can be read.

        >>> InputSpec("x", ("n", 3, 48, "w"), "float32").admits((1, 3, 48, 320))
        True
        """
        return len(shape) == len(self.shape) and all(
            size > 0 and (isinstance(dimension, str) or dimension == size)
            for size, dimension in zip(shape, self.shape, strict=True)
        )

    def __str__(self) -> str:
        """Return it as people write it.

        >>> str(InputSpec("x", ("n", 3, 48, ""), "float32"))
        'x: nx3x48x? float32'
        """
        return f"{self.name}: {shape_text(self.shape)} {self.dtype}"


def shape_text(shape: tuple[Dimension, ...]) -> str:
    """Return dimensions as people write them; `()` for a single number.

    >>> shape_text((1, 3, "", 8))
    '1x3x?x8'
    """
    return "x".join(str(dimension) or "?" for dimension in shape) or "()"


def require_bindable(specs: tuple[InputSpec, ...], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise unless open dimensions of one name have one size in all inputs of these shapes.

    Raises:
        TrilobitError: two inputs disagree.
    """
    bound: dict[str, tuple[int, str]] = {}
    for spec in specs:
        for dimension, size in zip(spec.shape, shapes[spec.name], strict=True):
            if not isinstance(dimension, str) or not dimension:
                continue
            other, where = bound.setdefault(dimension, (size, spec.name))
            if other != size:
                raise TrilobitError(
                    f"open dimension {dimension!r} is {other} in input {where} and {size} in input "
                    f"{spec.name}; give both the same size"
                )
