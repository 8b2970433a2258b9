"""The choices that families have in common, with what they mean."""

from collections.abc import Iterator
from dataclasses import dataclass

from supernet.space.space import Choice, Kind, Option

Conditions = tuple[tuple[str, tuple[Option, ...]], ...]


def resolution(options: tuple[int, ...]) -> Choice:
    """Return the choice of the input's height and width."""
    return Choice("resolution", options, role="resolution")


def length(options: tuple[int, ...]) -> Choice:
    """Return the choice of how many tokens are read."""
    return Choice("length", options, role="length")


def precision(layer: str, formats: tuple[str, ...], active_if: Conditions = ()) -> Choice:
    """Return the choice of the number formats of a layer outside the stages."""
    return Choice(f"{layer}.format", formats, "precision", active_if, "format", layer=layer)


def of_stage(s: int, role: str, options: tuple[int, ...], kind: Kind = "architecture") -> Choice:
    """Return a choice for all blocks of a stage."""
    return Choice(f"s{s}.{role}", options, kind, (), role, s)


@dataclass(frozen=True)
class BlockChoices:
    """Makes the choices of one block.

    Attributes:
        stage, block: its place.
        active_if: when it is there.
    """

    stage: int
    block: int
    active_if: Conditions

    def __call__(
        self,
        role: str,
        options: tuple[Option, ...],
        kind: Kind = "architecture",
        *,
        layer: str = "",
        when: Conditions = (),
    ) -> Choice:
        """Return a choice of the block, or of one layer of it; `when` is asked before all else."""
        name = ".".join(part for part in (f"s{self.stage}.b{self.block}", layer, role) if part)
        return Choice(name, options, kind, (*when, *self.active_if), role, self.stage, self.block, layer)

    def precision(self, layer: str, formats: tuple[str, ...]) -> Choice:
        """Return the choice of the number formats of one of its layers, or of itself for an empty name."""
        return self("format", formats, "precision", layer=layer)


def blocks(s: int, depths: tuple[int, ...]) -> Iterator[BlockChoices]:
    """Yield one for every block that a stage of these depths can have."""
    for b in range(max(depths)):
        deep_enough = tuple(depth for depth in depths if depth > b)
        yield BlockChoices(s, b, () if b < min(depths) else ((f"s{s}.depth", deep_enough),))
