"""The policies of a model as a search space: one choice per unit, the first option fp32."""

from collections.abc import Mapping, Sequence

import numpy as np

from hw_profiles.graph.formats import FP32
from supernet.formats.loading import load_format
from supernet.imported.model import ImportedModel
from supernet.ptq.quantization import Policy
from supernet.space.space import Choice, Genomes, SearchSpace

FAMILY = "policies"  # of the spaces of all imported models


def policy_space(model: ImportedModel, formats: Mapping[str, Sequence[str]]) -> SearchSpace:
    """Return the space of a model's policies: a choice for each unit that has formats beside fp32, in the
    order in which units run. Gene 0 is fp32.

    Args:
        formats: by unit, what it may take; fp32 need not be among them.
    """
    blocks = blocks_of(model)
    choices = []
    for unit in model.units:
        offered = (name for name in dict.fromkeys(formats.get(unit.name, ())) if name != FP32)
        options = sorted(offered, key=_order)
        if options:
            choices.append(
                Choice(
                    unit.name,
                    (FP32, *options),
                    kind="precision",
                    role="format",
                    block=blocks[unit.name],
                    layer=unit.name,
                )
            )
    return SearchSpace(FAMILY, tuple(choices))


def _order(name: str) -> tuple[bool, int]:
    """Return what formats are in the order of: codes of 8 bits are first, since most policies have those."""
    number_format = load_format(name)
    activation = load_format(number_format.on).activation
    return not (activation is not None and activation.needs_scale), -number_format.bits


def policy_of(space: SearchSpace, genome: Genomes) -> Policy:
    """Return the policy (g,) as formats by unit; units in fp32 are left out."""
    chosen = zip(space.choices, genome.tolist(), strict=True)
    return {choice.name: str(choice.options[gene]) for choice, gene in chosen if gene}


def uniform_genomes(space: SearchSpace) -> Genomes:
    """Return (k, g) fp32 throughout, then for each format the policy that has it wherever it can be had."""
    named = dict.fromkeys(str(option) for choice in space.choices for option in choice.options[1:])
    rows = [np.zeros(len(space.choices), np.int16)]
    for name in named:
        genes = [choice.options.index(name) if name in choice.options else 0 for choice in space.choices]
        rows.append(np.array(genes, np.int16))
    return np.stack(rows)


def all_int8(space: SearchSpace) -> Genomes:
    """Return the policy (g,) that has int8 wherever it can be had, else the first format."""
    genes = [c.options.index("int8") if "int8" in c.options else 0 for c in space.choices]
    genome = np.array(genes, np.int16)
    return genome if genome.any() else np.minimum(space.cardinalities - 1, 1).astype(np.int16)


def single_genomes(space: SearchSpace) -> Genomes:
    """Return (s, g) every policy in which one unit alone is not fp32: by unit, then by format."""
    rows = []
    for column, choice in enumerate(space.choices):
        for gene in range(1, len(choice.options)):
            row = np.zeros(len(space.choices), np.int16)
            row[column] = gene
            rows.append(row)
    return np.stack(rows) if rows else np.empty((0, len(space.choices)), np.int16)


def blocks_of(model: ImportedModel) -> dict[str, int]:
    """Return the block of each unit: the network is cut wherever a single tensor crosses from what has run
    to what has not.
    """
    last_reader = {
        tensor: index for index, unit in enumerate(model.units) for tensor in unit.inputs
    }  # the last one wins
    alive_until = {
        tensor: max(last_reader.get(tensor, index), len(model.units) * (tensor in model.outputs))
        for index, unit in enumerate(model.units)
        for tensor in unit.outputs
    }
    blocks: dict[str, int] = {}
    block, alive = 0, dict[str, int]()
    for index, unit in enumerate(model.units):
        blocks[unit.name] = block
        alive |= {tensor: alive_until[tensor] for tensor in unit.outputs}
        alive = {tensor: last for tensor, last in alive.items() if last > index}
        block += len(alive) <= 1
    return blocks
