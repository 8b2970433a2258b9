"""How much each number format of one architecture hurts by itself, scored in one of several ways."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.graph.lowering import lower
from nas.allocation.sensitivity_file import choice_sensitivities, run_sensitivity
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import DeviceEvaluator
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.run.registry import SENSITIVITIES as SENSITIVITIES
from nas.run.run import Run
from supernet.families.family import SIZES, Family
from supernet.formats.loading import load_weight_format
from supernet.graph.executor import layered, sized_layer
from supernet.sensitivity.hessian import hessian_traces, largest_layers
from supernet.space.space import Candidate, Genomes, in_fp32

HESSIAN_IMAGES, PROBES = 128, 16

# name of a choice of formats -> what each of its options adds
Sensitivity = Mapping[str, tuple[float, ...]]


def sensitivity(run: Run, kind: str, genome: Genomes, columns: tuple[int, ...]) -> Sensitivity:
    """Measure the choices in `columns`, for the architecture of `genome` (g,), on the trained supernet.

    Raises:
        TrilobitError: no such kind, or the supernet is not trained.
    """
    if kind not in SENSITIVITIES:
        raise TrilobitError(f"unknown sensitivity {kind!r}; known: {', '.join(SENSITIVITIES)}")
    if kind == "hessian":
        return hessian_sensitivity(run, genome, columns)
    space = run.family.space()
    names = [space.choices[column].name for column in columns]
    network = space.candidate(in_fp32(space, genome[None])[0])
    if kind == "kl" and network == run.family.extreme("largest"):
        measured = run_sensitivity(run).options
        return {name: measured[name] for name in names}
    measured = dict(choice_sensitivities(run, names, network, kind))
    return {name: measured[name] for name in names}


def hessian_sensitivity(run: Run, genome: Genomes, columns: tuple[int, ...]) -> Sensitivity:
    """Compute HAWQ-V3's: over the layers that a choice sets, the mean eigenvalue of the loss's Hessian in the
    weights times the squared error of rounding them. It sees weights only: formats of activations are as good
    as each other.
    """
    builder, family = NetworkBuilder(run), run.family
    net = builder.supernet
    images = builder.calibration[:HESSIAN_IMAGES]
    work = family.plain_workload(family.arch(family.space().candidate(genome)))
    batch = run.task.inputs(images, work.in_size)
    loss = partial(run.task.loss, smoothing=0.0)
    arguments = (layered(net), work, batch, run.task.targets(images))
    traces = hessian_traces(*arguments, probes=PROBES, seed=run.config.seed, loss=loss)
    layers = largest_layers(work)
    sensitivities = {}
    for column in columns:
        formats_by_option = _set_by(family, genome, column)
        sensitivities[family.space().choices[column].name] = tuple(
            sum(
                max(traces[name], 0.0) * _rounding_error(builder, name, layers[name], fmt)
                for name, fmt in formats.items()
            )
            for formats in formats_by_option
        )
    return sensitivities


def _set_by(family: Family, genome: Genomes, column: int) -> list[dict[str, str]]:
    """Layers whose weights this choice sets, with their format for each of its options."""
    space, by_option = family.space(), []
    for gene in range(len(space.choices[column].options)):
        changed = genome.copy()
        changed[column] = gene
        work = lower(family.workload(space.candidate(changed)))
        by_option.append(
            {n: x.weight_format for n, x in zip(work.names, work.layers, strict=True) if x.weighted}
        )
    moved = [name for name in by_option[0] if len({formats[name] for formats in by_option}) > 1]
    return [{name: formats[name] for name in moved} for formats in by_option]


def _rounding_error(builder: NetworkBuilder, name: str, layer: Layer, fmt: str) -> float:
    """Squared error of a layer's weights in a format: by learned scales where there are some."""
    with torch.no_grad():
        weight = sized_layer(layered(builder.supernet).layer(name), layer).weight
        if builder.quantizers is not None:
            return float(((builder.quantizers.weight(name, weight, fmt) - weight) ** 2).sum())
        weight_format, values = load_weight_format(fmt, builder.sums), weight.numpy()
        rounded = weight_format.decode(weight_format.encode(values))
        return float(((rounded.astype(np.float64) - values) ** 2).sum())


def known_candidate(run: Run, name: str) -> Candidate:
    """Find the network that a person names: `largest`, `smallest`, the id of one that this run evaluated, or
    its genes, separated by commas.

    Raises:
        TrilobitError: there is none.
    """
    space = run.family.space()
    for size in SIZES:
        if name == size:
            return run.family.extreme(size)
    if "," in name:
        try:
            return space.candidate(np.array([int(gene) for gene in name.split(",")], np.int16))
        except (ValueError, OverflowError):
            raise TrilobitError(f"--architecture {name!r}: genes are integers") from None
    builder = NetworkBuilder(run)
    for store in (DeviceEvaluator(builder).measuring.store, SupernetEvaluator(builder).samples):
        evaluated = {trial.user_attrs.get("id"): trial.user_attrs.get("genes") for trial in store.trials()}
        if name in evaluated:
            return space.candidate(np.array(evaluated[name], np.int16))
    raise TrilobitError(
        f"--architecture {name!r}: this run evaluated no network of that id; write an id of front.json, "
        f"largest, smallest, or {len(space.choices)} genes such as 0,1,2"
    )
