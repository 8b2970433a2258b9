"""One file that holds decoders of several depths: the deepest, and a way out after some of its blocks.

Depths are prefixes that share the norm and the head behind them (Sorted LLaMA, Kavehzadeh et al. 2023,
arXiv:2309.08968), so that the decoder of n blocks is in the deeper one, but for these two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import outputs
from nas.checks.check import DisagreementError
from nas.checks.parity import AGREEMENT, input_of, open_file
from nas.emit.to_onnx import emit
from nas.evaluation.builder import NetworkBuilder
from nas.export.context import ExportContext
from nas.export.manifest import ExitRecord
from supernet.graph.joined import joined
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import Candidate, Choice, SearchSpace
from supernet.tasks.evaluate import simulated_outputs
from supernet.tasks.metric import main_metric

DEPTH = "depth"  # role of the choice of how many blocks there are
METADATA = "trilobit.exits"  # of a file: blocks behind each output, in order


@dataclass(frozen=True, eq=False)
class ExitsFile:
    """Decoders of several depths as one file.

    Attributes:
        model: the ONNX file.
        exits: those of fewest blocks first; the last is the exported network itself.
    """

    model: bytes
    exits: tuple[ExitRecord, ...]


def build_exits(builder: NetworkBuilder, context: ExportContext) -> ExitsFile:
    """Build the file of a network and of those that it begins with, and score each through it.

    Raises:
        TrilobitError: the space has no such networks.
        DisagreementError: one says something else than its simulation.
    """
    run, task = builder.run, builder.run.task
    candidates = exit_candidates(run.family.space(), context.candidate)
    networks = {blocks: builder.network(candidate) for blocks, candidate in candidates.items()}
    batch = None if run.config.export.dynamic_batch else run.config.device.batch
    model = exits_file(networks, batch=batch, portable=builder.portable)
    executable = open_file(model, run.runtime)
    size = context.lowered.in_size
    validation, test = (
        next(
            outputs(executable, [{executable.inputs[0].name: input_of(part, task, size=size, pixels=False)}])
        )
        for part in (task.validation, task.test)
    )
    main, exits = main_metric(task).name, list[ExitRecord]()
    for output, (blocks, network) in zip(
        (info.name for info in executable.outputs), networks.items(), strict=True
    ):
        agreement = task.agreement(validation[output], simulated_outputs(network, task.validation, task))
        if agreement < AGREEMENT:
            raise DisagreementError(
                f"the exit after {blocks} blocks agrees with its simulation on {agreement:.2%}, below "
                f"{AGREEMENT:.1%}"
            )
        figures = (
            task.evaluate(said[output], part)[main]
            for said, part in ((validation, task.validation), (test, task.test))
        )
        exits.append(ExitRecord(blocks, output, *figures))
    return ExitsFile(model, tuple(exits))


def exit_candidates(space: SearchSpace, candidate: Candidate) -> dict[int, Candidate]:
    """Return the networks that a candidate begins with, by their blocks: the fewest first, itself last.

    Raises:
        TrilobitError: the space has not exactly one choice of a depth.
    """
    choice = _depth(space)
    column = space.columns[choice.name]
    most = int(choice.options[candidate.genes[column]])
    shallower = {}
    for gene, option in sorted(enumerate(choice.options), key=lambda pair: int(pair[1])):
        if int(option) <= most:
            genes = np.array(candidate.genes, np.int16)
            genes[column] = gene
            shallower[int(option)] = space.candidate(genes)
    return shallower


def _depth(space: SearchSpace) -> Choice:
    depths = [choice for choice in space.choices if choice.role == DEPTH]
    if len(depths) != 1:
        raise TrilobitError(
            f"several exits are for spaces with one depth, whose networks begin with their shallower ones, "
            f"such as text-decoder; {space.family} has {len(depths)}; leave --exits out"
        )
    return depths[0]


def exits_file(
    networks: Mapping[int, QuantizedGraph],
    *,
    batch: int | None = 1,
    metadata: Mapping[str, str] | None = None,
    portable: bool = False,
) -> bytes:
    """Return networks, by their blocks, as one ONNX file with as many outputs, see `joined`.

    Args:
        batch, metadata, portable: see `emit`; the blocks behind each output are added to the metadata.
    """
    together = joined({f"exit{blocks}": network for blocks, network in networks.items()})
    exits = {METADATA: " ".join(map(str, networks))}
    model = emit(together, batch=batch, metadata={**(metadata or {}), **exits}, portable=portable)
    return _stored_once(model)


def _stored_once(model: bytes) -> bytes:
    """Return a model in which equal stored numbers, such as those of the heads, are there once."""
    proto = onnx.load_from_string(model)
    names: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    kept, renamed = list[onnx.TensorProto](), dict[str, str]()
    for tensor in proto.graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
        renamed[tensor.name] = names.setdefault(key, tensor.name)
        if renamed[tensor.name] == tensor.name:
            kept.append(tensor)
    for node in proto.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    data: bytes = proto.SerializeToString()
    return data
