"""A policy of an imported model as one self-contained library: what its own file is, in machine code."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.windows import map_shape
from hw_profiles.runtimes.runtime import TensorInfo
from hw_profiles.runtimes.tvm_cpu.self_contained import SelfContained, Signature
from hw_profiles.runtimes.tvm_cpu.standalone import ChannelsFirst
from nas.export.library.to_tvm import Library, build_library
from supernet.imported.folding import Folded, fold
from supernet.imported.model import ImportedModel
from supernet.ptq.policy_graph import quantized_graph
from supernet.ptq.quantization import Policy, Quantization


def policy_library(
    quantization: Quantization,
    policy: Policy,
    *,
    target: str = "host",
    database: Path | None = None,
    tuned: bool = True,
) -> tuple[Library, SelfContained]:
    """Return a policy as a library, which reads and gives what the model's file does.

    Args:
        target, database, tuned: see `build_library`.

    Raises:
        TrilobitError: a unit has no kernel, or is in an order that none reads; says which.
    """
    model = quantization.model
    folded = fold(model)
    network = quantized_graph(quantization, policy)
    first = _ends(folded)
    library = build_library(network, target=target, database=database, tuned=tuned, first=first)
    layers = tuple(layer.key() for layer in library.plan.workload.layers)
    return library, SelfContained(library.code, signature=signature_of(model), layers=layers)


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
