"""`ImportedModel`: somebody's trained network, and the units in which its number formats are chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.layer import Layer
from hw_profiles.graph.workload import Workload

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Unit:
    """Nodes that a runtime computes as one kernel: a product with what is fused into it, or one operation.

    Attributes:
        name: of its first node.
        op: ONNX's name of that node's operation.
        nodes: names of its nodes, in the order in which they run.
        inputs: tensors that it reads and that are not stored in the file.
        outputs: tensors that it gives: the last node's.
        weight: name of the stored tensor that it multiplies with; empty without. `Conv` stores (out, in /
            groups, ...), `Gemm` and `MatMul` as their attributes say.
        bias: name of the stored tensor that is added to the product; empty without.
        macs: multiply-adds at the bound sizes, of operations that the table does not have too.
        layer: what the unit is in the operation table, at the bound sizes; `Opaque` where that has none.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: Layer
    weight: str = ""
    bias: str = ""
    macs: int = 0

    @property
    def weighted(self) -> bool:
        """Whether it multiplies with stored numbers."""
        return bool(self.weight)


@dataclass(frozen=True, eq=False)
class ImportedModel:
    """A network as it is tuned: constants folded, every node named, function unchanged.

    Attributes:
        content: the ONNX file, self-contained; open dimensions are open in it as they were.
        units: in the order in which they run; every node is in one of them.
        workload: the same network in the operation table at the bound sizes: a layer of its name for each
            unit, all in fp32.
        shapes: sizes of every tensor that is not stored, by name, where open dimensions are bound; a batch
            is one example.
        dtypes: numpy's names of their element types.
        bound: what open dimensions were bound to, by their names in the file.
        constants: stored numbers that units refer to, by name.
        inputs, outputs: names of what the network reads and gives, in the file's order.
        metadata: the file's own.
        fixed: value of inputs that are not read any more, since they always have the same.
    """

    content: bytes
    units: tuple[Unit, ...]
    workload: Workload
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    bound: Mapping[str, int]
    constants: Mapping[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, str]
    fixed: Mapping[str, bool | int | float] = field(default_factory=dict)

    def unit(self, name: str) -> Unit:
        """Return the unit called `name`."""
        return self._by_name[name]

    @property
    def macs(self) -> int:
        """Multiply-adds at the bound sizes."""
        return sum(unit.macs for unit in self.units)

    @cached_property
    def _by_name(self) -> Mapping[str, Unit]:
        return {unit.name: unit for unit in self.units}

    @cached_property
    def producers(self) -> Mapping[str, Unit]:
        """The unit that gives each tensor; what the network reads is missing."""
        return {tensor: unit for unit in self.units for tensor in unit.outputs}

    @cached_property
    def readers(self) -> Mapping[str, tuple[Unit, ...]]:
        """The units that read each tensor; a tensor that nothing reads is missing."""
        readers: dict[str, tuple[Unit, ...]] = {}
        for unit in self.units:
            for tensor in dict.fromkeys(unit.inputs):
                readers[tensor] = (*readers.get(tensor, ()), unit)
        return readers
