"""`Model`: a trained model of one's own, as `nas.load` opens it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.checks.open_model import OpenedModel


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained model of one's own: what it reads and gives, and the units in which it can be tuned.

    Attributes:
        opened: the file as it came, and prepared.
    """

    opened: "OpenedModel"

    def __repr__(self) -> str:
        return f"Model({self.name}: {len(self.units)} units, {self.macs:,} multiply-adds)"

    @property
    def name(self) -> str:
        """What it is called: the path of its file, or the class of a torch module."""
        return self.opened.name

    @property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        """Sizes of what it reads, by name, where open dimensions are bound."""
        return {name: self.opened.model.shapes[name] for name in self.opened.model.inputs}

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Sizes of what it gives, by name."""
        return {name: self.opened.model.shapes[name] for name in self.opened.model.outputs}

    @property
    def units(self) -> tuple[str, ...]:
        """Names of what a runtime computes as one kernel, in the order in which they run."""
        return tuple(unit.name for unit in self.opened.model.units)

    @property
    def size_bytes(self) -> int:
        """Bytes of its file, with the weights that it keeps in others."""
        return self.opened.outline.size_bytes

    @property
    def macs(self) -> int:
        """Multiply-adds of one inference."""
        return self.opened.model.macs
