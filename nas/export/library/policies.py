"""A policy of an imported model as one self-contained library: what its own file is, in machine code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.conversions import convert
from hw_profiles.graph.formats import FP32
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.windows import map_shape
from hw_profiles.runtimes.runtime import KernelTime, Runtime, TensorInfo
from hw_profiles.runtimes.tvm_cpu.elsewhere import LibrariesThere
from hw_profiles.runtimes.tvm_cpu.link import NetworkPlan
from hw_profiles.runtimes.tvm_cpu.runtime import TvmRuntime, Units
from hw_profiles.runtimes.tvm_cpu.self_contained import SelfContained, Signature
from hw_profiles.runtimes.tvm_cpu.standalone import ChannelsFirst
from hw_profiles.runtimes.tvm_cpu.templates import template_of
from hw_profiles.runtimes.tvm_cpu.tuning import TrialRunner, tune
from nas.export.library.to_tvm import build_library
from nas.export.library.tuned import BuiltLibrary
from supernet.imported.folding import CLIPPED, Folded, fold
from supernet.imported.model import ImportedModel
from supernet.ptq.policy_graph import FOLLOWING, policy_workload, quantized_graph
from supernet.ptq.quantization import Policy, Quantization


@dataclass(frozen=True, eq=False)
class PolicyLibraries:
    """Writes policies as libraries for a runtime, which then runs them: on this machine, or on boards.

    Attributes:
        runtime: of own kernels.
        tuned: whether kernels that its database lacks are tuned; else the first schedule is taken.
    """

    runtime: TvmRuntime
    tuned: bool = True

    @classmethod
    def of(cls, runtime: Runtime, *, tuned: bool = True) -> Self:
        """Return what writes for a runtime.

        Raises:
            TypeError: it has no kernels of ours.
        """
        builder = runtime.here.local if isinstance(runtime, LibrariesThere) else runtime
        if not isinstance(builder, TvmRuntime):
            raise TypeError(f"{type(runtime).__name__} builds no libraries")
        return cls(builder, tuned)

    def library(self, quantization: Quantization, policy: Policy) -> BuiltLibrary:
        """Return a policy as a library, which reads and gives what the model's file does.

        Raises:
            TrilobitError: a unit has no kernel, or is in an order that none reads; says which.
        """
        model = quantization.model
        network = quantized_graph(quantization, policy)
        signature = signature_of(model)
        library = build_library(
            network,
            target=self.runtime.target.name,
            database=self.runtime.database.folder,
            tuned=self.tuned,
            trials=self.runtime.trials,
            first=_ends(fold(model)),
            signature=signature,
        )
        layers = tuple(layer.key() for layer in library.plan.workload.layers)
        kernels = kernel_times(model, library.plan)
        self.runtime.remember(SelfContained(library.code, signature, layers, kernels))
        return BuiltLibrary(library.code, library.target, library.integer_only, signature)

    def write(self, quantization: Quantization, policy: Policy) -> bytes:
        """Return the file of a policy."""
        return self.library(quantization, policy).code

    def untuned(self, layers: Sequence[Layer]) -> list[Layer]:
        """Return those of these layers that have a kernel which was not tuned yet."""
        database = self.runtime.database
        supported = filter(self.runtime.supports, layers)
        return [layer for layer in supported if database.load(layer, tuned=self.tuned) is None]

    def schedules(self, layers: Sequence[Layer]) -> int:
        """Return how many schedules are compiled and tried out to tune these layers."""
        target = self.runtime.target
        return sum(len(template_of(layer).tiles(layer, target)) for layer in layers)

    def tune_kernels(
        self, layers: Sequence[Layer], on_done: Callable[[int], None] = lambda done: None
    ) -> None:
        """Compile and try out the kernels of these layers that the database lacks."""

        def use(runner: TrialRunner | None) -> Units:
            for done, _ in enumerate(tune(layers, self.runtime.database, runner), start=1):
                on_done(done)
            return {}

        if self.tuned:
            self.runtime.trials(use)
        else:
            use(None)


def kernel_layers(model: ImportedModel, formats: Mapping[str, Sequence[str]]) -> list[Layer]:
    """Return the layers of all policies of a model: of every unit in each of its formats, and the conversions
    of every tensor.
    """
    named = dict.fromkeys((FP32, *(fmt for names in formats.values() for fmt in names)))
    layers: dict[Layer, None] = {}
    for fmt in named:
        policy = {unit: fmt for unit, names in formats.items() if fmt in names}
        layers |= dict.fromkeys(policy_workload(model, policy).layers)
    integers = [fmt for fmt in named if fmt != FP32]
    folded = fold(model).workload
    types = [*(feed.type for feed in folded.feeds), *folded.types] if integers else []
    for x in types:
        codes = replace(x, format=FOLLOWING)
        layers |= dict.fromkeys((*convert(x, FOLLOWING), *convert(codes, FP32)))
    return list(layers)


def kernel_times(model: ImportedModel, plan: NetworkPlan) -> tuple[KernelTime, ...]:
    """Return what the kernels of a library took when they were tried out, called as the file calls its nodes
    and tensors; none where one of them was not tried out.
    """
    work, folded = plan.workload, fold(model)
    units = {unit.name: unit for unit in model.units}
    names = [_moved_on(model.inputs[0], model, folded)]  # of tensors; the last, `INPUT`, is what is read
    kernels: list[KernelTime] = []
    for name, layer, compiled, sources in zip(work.names, work.layers, plan.units, work.inputs, strict=True):
        unit = units.get(name.removesuffix(CLIPPED))
        last = unit is not None and f"{name}{CLIPPED}" not in work.names
        given = _moved_on(unit.outputs[0], model, folded) if unit is not None and last else name
        if compiled.seconds is None:
            return ()
        reads = tuple(names[source] for source in sources)
        op, node = (unit.op, unit.name) if unit is not None else (layer.op, name)
        kernels.append(KernelTime(node, op, compiled.seconds, reads, (given,)))
        names.insert(-1, given)
    return tuple(kernels)


def _moved_on(tensor: str, model: ImportedModel, folded: Folded) -> str:
    """Return the tensor behind whatever only moves one."""
    while len(readers := model.readers.get(tensor, ())) == 1 and readers[0].name in folded.moved:
        tensor = readers[0].outputs[0]
    return tensor


def signature_of(model: ImportedModel) -> Signature:
    """Return what a library of a model reads and gives."""
    return Signature(_info(model, model.inputs[0]), _info(model, model.outputs[0]))


def _info(model: ImportedModel, name: str) -> TensorInfo:
    """Return a tensor of the file; its first dimension is any number where that is the batch."""
    shape = model.shapes[name]
    return TensorInfo(name, (None, *shape[1:]) if shape[:1] == (1,) else shape, model.dtypes[name])


def _ends(folded: Folded) -> ChannelsFirst:
    """Return which ends of the file have their channels first in memory.

    Raises:
        TrilobitError: an end is neither as the kernels have it nor the other way round.
    """
    work = folded.workload
    (view,) = folded.outputs
    image = map_shape(work.feeds[0].type)
    entered = folded.entered(np.arange(np.prod(image)).reshape(_read_shape(folded)))
    output = map_shape(work.type_of(view.tensor))
    given = np.arange(np.prod(output)).reshape(1, *output)
    rank = len(work.type_of(view.tensor).shape)
    left = view.of(given.reshape(given.shape[:rank]))
    return ChannelsFirst(
        _is_first(entered.reshape(image).transpose(1, 2, 0), image, "input"),
        _is_first(np.argsort(left.ravel()).reshape(output).transpose(1, 2, 0), output, "output"),
    )


def _read_shape(folded: Folded) -> tuple[int, ...]:
    """Return the shape of the file's input for one example."""
    x = folded.entry[0].inputs[0] if folded.entry else folded.workload.feeds[0].type
    return tuple(1 if isinstance(size, str) else size for size in x.shape)


def _is_first(places: NDArray[np.generic], shape: tuple[int, int, int], end: str) -> bool:
    """Return whether channels are first in memory; `places` are those of (h, w, c) numbers there."""
    flat, count = places.ravel(), places.size
    if np.array_equal(flat, np.arange(count)):
        return False
    if np.array_equal(flat, np.arange(count).reshape(shape).transpose(1, 2, 0).ravel()):
        return True
    raise TrilobitError(f"the model's {end} has its channels neither first nor last; no library reads that")
