"""Which term of a policy's time each kernel of its file belongs to.

A kernel whose node was taken over from the model is its unit's. What stands between units - quantizing and
dequantizing, changes of layout - belongs to the conversion there if the policy has one, else to the unit
that reads it.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hw_profiles.runtimes.runtime import KernelTime
from predictors.latency.policy_terms import CALLER, PolicyTerms, Term
from supernet.imported.model import ImportedModel
from supernet.space.space import Genomes

# what ONNX Runtime appends to the names of nodes that it changes
_APPENDED = re.compile(r"(_token_\d+|_nchwc|_nhwc|/MatMulAddFusion/?|/MatMulScaleFusion/?|_quant|_transB)+$")
_CONVERSIONS = frozenset(
    ("QuantizeLinear", "DequantizeLinear", "Transpose", "ReorderInput", "ReorderOutput", "Cast")
)


def attribute(kernels: Sequence[KernelTime], terms: PolicyTerms, genome: Genomes) -> dict[Term, float]:
    """Return the seconds of each term that a policy (g,) has, and of each unit on the kernel that it runs on,
    fp32's among them.

    Args:
        kernels: of the policy's file.
    """
    graph = KernelGraph(tuple(kernels), terms.model)
    present = {term for term, has in zip(terms.terms, terms(genome[None])[0], strict=True) if has}
    runs_on = terms.kernels_of(genome)
    # what is fused into others takes no time of its own
    seconds = {term: 0.0 for term in (*present, *(Term("unit", *pair) for pair in runs_on.items()))}
    for number, owner in enumerate(graph.owners):
        belongs = Term("unit", owner, runs_on[owner]) if owner else graph.conversion(number, present, runs_on)
        if belongs is not None:
            seconds[belongs] += kernels[number].seconds
    return seconds


@dataclass(frozen=True, eq=False)
class KernelGraph:
    """Kernels, and the units around them."""

    kernels: tuple[KernelTime, ...]
    model: ImportedModel

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """The unit of each kernel; empty where it has none."""
        named = {node: unit.name for unit in self.model.units for node in unit.nodes}
        given = {tensor: unit.name for unit in self.model.units for tensor in unit.outputs}
        return tuple(self._owner(kernel, named, given) for kernel in self.kernels)

    def _owner(self, kernel: KernelTime, named: Mapping[str, str], given: Mapping[str, str]) -> str:
        plain = _APPENDED.sub("", kernel.name)
        owners = [named[name] for name in (kernel.name, plain) if name in named]
        if not owners and kernel.op not in _CONVERSIONS:
            # ONNX Runtime names convolutions that it moves to a layout of its own after their output
            owners = [given[name] for name in (plain, *kernel.gives) if name in given]
        return self._fused(owners[0], kernel) if owners else ""

    def _fused(self, name: str, kernel: KernelTime) -> str:
        """Return the unit that a kernel computes: one that has what follows it fused into it may be called
        after that.
        """
        unit = self.model.unit(name)
        if unit.op not in kernel.op:
            before = (self.model.producers.get(tensor) for tensor in unit.inputs)
            return next((each.name for each in before if each and each.op in kernel.op), name)
        return name

    def conversion(self, number: int, present: set[Term], runs_on: Mapping[str, str]) -> Term | None:
        """Return what a kernel without a unit belongs to; None where that is not known."""
        readers = tuple(dict.fromkeys(self._below(number)))
        given = (tensor for tensor in self.kernels[number].gives if tensor in self.model.shapes)
        for tensor in dict.fromkeys((*given, *self._above(number))):
            read = set(self.model.readers.get(tensor, ()))
            of = [name for name in readers if not name or self.model.unit(name) in read]
            for term in (*(Term("dequantize", tensor, name) for name in of), Term("quantize", tensor)):
                if term in present:
                    return term
            if of and of[0]:
                return Term("unit", of[0], runs_on[of[0]])
        return None

    @cached_property
    def _producers(self) -> Mapping[str, int]:
        return {tensor: number for number, kernel in enumerate(self.kernels) for tensor in kernel.gives}

    @cached_property
    def _readers(self) -> Mapping[str, Sequence[int]]:
        readers: dict[str, list[int]] = defaultdict(list)
        for number, kernel in enumerate(self.kernels):
            for tensor in kernel.reads:
                readers[tensor].append(number)
        return readers

    def _above(self, number: int) -> Iterator[str]:
        """Yield the model's tensors that a kernel without a unit reads, through others like it."""
        for tensor in self.kernels[number].reads:
            source = self._producers.get(tensor)
            if tensor in self.model.shapes:
                yield tensor
            elif source is None:
                continue
            elif owner := self.owners[source]:
                yield from self.model.unit(owner).outputs
            else:
                yield from self._above(source)

    def _below(self, number: int) -> Iterator[str]:
        """Yield the units that read what a kernel without one gives, through others like it."""
        for tensor in self.kernels[number].gives:
            numbers = self._readers.get(tensor, ())
            if not numbers:
                yield CALLER
            for reader in numbers:
                if owner := self.owners[reader]:
                    yield owner
                else:
                    yield from self._below(reader)
