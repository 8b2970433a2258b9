"""`Consumer`: one of those who interpret operations, with a function for each that it knows and a reason for
each that it does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.ops import operation

F_co = TypeVar("F_co", covariant=True)


@dataclass(frozen=True)
class Consumer(Generic[F_co]):
    """The operations that one interpreter knows.

    Attributes:
        name: what it is, for messages and tables, for example `ONNX files`.
        functions: by operation.
        otherwise: why it does not know the others, and what to do instead.
        refusals: a reason of its own for some of them.
    """

    name: str
    functions: Mapping[str, F_co]
    otherwise: str
    refusals: Mapping[str, str] = field(default_factory=dict)

    def refusal(self, op: str) -> str | None:
        """Return why an operation is refused; None where it is not."""
        return None if op in self.functions else self.refusals.get(op, self.otherwise)

    def __getitem__(self, op: str) -> F_co:
        """Return the function of an operation.

        Raises:
            TrilobitError: there is none, or no such operation; the message says why.
        """
        if op in self.functions:
            return self.functions[op]
        raise TrilobitError(f"{self.name}: no {operation(op).name}: {self.refusal(op)}")
