"""A network as `.tflite` files have it: tensors and operators, by the names of LiteRT's schema. Knows nothing
of layers, and imports no engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class FlatTensor:
    """One tensor.

    Attributes:
        name: of it.
        shape: as it lies in memory, channels last.
        dtype: numpy's name of its element type.
        scales: of its codes, one, or one for each slice along `axis`; empty of real numbers.
        zero_point: the code of zero.
        axis: see `scales`.
        data: stored numbers; None of what is computed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int = 0
    data: NDArray[Any] | None = None


@dataclass(frozen=True)
class FlatOperator:
    """One operator.

    Attributes:
        code: name of it in the schema, such as `CONV_2D`.
        inputs, outputs: places of tensors.
        options: fields of its options in the schema, by name; words of the schema, such as `SAME`, as text.
        kind: of these options, such as `Conv2DOptions`; empty without.
        version: of the operator, which says what types it takes.
    """

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1


@dataclass
class FlatModel:
    """A network that grows tensor by tensor."""

    tensors: list[FlatTensor] = field(default_factory=list)
    operators: list[FlatOperator] = field(default_factory=list)

    def add(self, tensor: FlatTensor) -> int:
        """Add a tensor; return its place."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name: str, data: NDArray[Any], **quantization: Any) -> int:
        """Add stored numbers; return their place."""
        return self.add(FlatTensor(name, data.shape, str(data.dtype), data=data, **quantization))

    def operator(
        self, code: str, inputs: Sequence[int], outputs: Sequence[int], kind: str = "", **options: Any
    ) -> None:
        """Add an operator; see `FlatOperator`."""
        version = options.pop("version", 1)
        self.operators.append(FlatOperator(code, tuple(inputs), tuple(outputs), kind, options, version))
