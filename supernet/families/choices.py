"""The choices that families have in common, with what they mean."""

from collections.abc import Iterator
from dataclasses import dataclass

from supernet.space.space import Choice, Kind, Option

Conditions = tuple[tuple[str, tuple[Option, ...]], ...]


def resolution(options: tuple[int, ...]) -> Choice:
    """Return the choice of the input's height and width."""
    return Choice("resolution", options, role="resolution")


def precision(layer: str, formats: tuple[str, ...], active_if: Conditions = ()) -> Choice:
    """Return the choice of the number formats of a layer outside the stages."""
    return Choice(f"{layer}.format", formats, "precision", active_if, "format")


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
        self, role: str, options: tuple[Option, ...], kind: Kind = "architecture", *, when: Conditions = ()
    ) -> Choice:
        """Return the choice with a role, of which the block has one; `when` is asked before all else."""
        return self._named(role, options, kind, (*when, *self.active_if), role)

    def precision(self, layer: str, formats: tuple[str, ...]) -> Choice:
        """Return the choice of the number formats of one of its layers, or of itself for an empty name."""
        name = f"{layer}.format" if layer else "format"
        return self._named(name, formats, "precision", self.active_if, "format")

    def _named(
        self, name: str, options: tuple[Option, ...], kind: Kind, when: Conditions, role: str
    ) -> Choice:
        full = f"s{self.stage}.b{self.block}.{name}"
        return Choice(full, options, kind, when, role, self.stage, self.block)


def blocks(s: int, depths: tuple[int, ...]) -> Iterator[BlockChoices]:
    """Yield one for every block that a stage of these depths can have."""
    for b in range(max(depths)):
        deep_enough = tuple(depth for depth in depths if depth > b)
        yield BlockChoices(s, b, () if b < min(depths) else ((f"s{s}.depth", deep_enough),))
