"""`damage.json` of a run: the sensitivity of each choice of a number format, measured once per supernet.

The file has the name of before the word, so that runs and what reads them stay as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from hw_profiles.documents import write_document
from hw_profiles.graph.counts import macs
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.reference import RunReference, opened, reference_to
from nas.run.documents import SensitivityFile, read_optional
from nas.run.run import Run
from supernet.sensitivity.kl import (
    Build,
    FormatSensitivity,
    Score,
    divergence,
    format_choices,
    measure_sensitivity,
)
from supernet.space.space import Candidate
from supernet.tasks.evaluate import network_builder

WORK = 1e12  # multiply-adds to spend, about a minute of one core; networks of ImageNet size take more
FEWEST, MOST = 16, 256  # images


def run_sensitivity(run: Run) -> FormatSensitivity:
    """Return the sensitivity of the run's trained supernet. What is not in the file yet is measured and
    written, choice by choice, so that a killed run goes on where it was.

    Raises:
        TrilobitError: the file is damaged, or the supernet is not trained.
    """
    path, trained = run.folder / "damage.json", run.rounded_fingerprint
    kept = read_optional(path, SensitivityFile)
    options = dict(kept.options) if kept is not None and kept.supernet == trained else {}
    space = run.family.space()
    lengths = {name: len(space.choices[space.columns[name]].options) for name in format_choices(space)}
    missing = [name for name, length in lengths.items() if len(options.get(name, ())) != length]
    for name, values in choice_sensitivities(run, missing, run.family.extreme("largest")):
        options[name] = values
        options = {name: options[name] for name in lengths if name in options}  # in whatever order they come
        write_document(path, SensitivityFile(trained, options))
    return FormatSensitivity(options)


def choice_sensitivities(
    run: Run, names: Sequence[str], network: Candidate, kind: str = "kl"
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield choices of number formats of a network in fp32, each with the sensitivity of its options, as soon
    as it is measured: here in order, by a cluster in any.

    Args:
        kind: one of `SCORES`.
    """
    if not names:
        return
    if run.cluster is None:
        yield from _measured(NetworkBuilder(run), names, network, kind)
        return
    measure = partial(measure_there, reference_to(run, "supernet"), network.genes, kind)
    for i, values in run.cluster.answers(measure, names):
        yield names[i], values


def measure_there(reference: RunReference, genes: tuple[int, ...], kind: str, name: str) -> tuple[float, ...]:
    """Measure the sensitivity of one choice of a network on a worker of a cluster."""
    with opened(reference) as builder:
        network = builder.run.family.space().candidate(np.array(genes, np.int16))
        return dict(_measured(builder, [name], network, kind))[name]


def _measured(
    builder: NetworkBuilder, names: Sequence[str], network: Candidate, kind: str
) -> Iterator[tuple[str, tuple[float, ...]]]:
    space = builder.run.family.space()
    return measure_sensitivity(space, names, network, *subject(builder, network), score=SCORES[kind])


def subject(builder: NetworkBuilder, network: Candidate) -> tuple[Build, Tensor]:
    """Return how to build policies of a network's architecture, and the images to compare them on."""
    run, family = builder.run, builder.run.family
    options = sum(len(c.options) - 1 for c in family.space().choices if c.kind == "precision")
    work = options * sum(map(macs, family.workload(network).layers))
    images = builder.calibration[: int(np.clip(WORK / work, FEWEST, MOST))]
    # learned scales take batch norm's statistics anew for every policy: of as many images
    calibration = builder.calibration if builder.quantizers is None else images
    shared = (run.task, calibration, builder.quantizers)
    build = network_builder(family, builder.supernet, network, *shared, sums=builder.sums)
    return build, run.task.inputs(images, family.resolution(network))


def noise_to_signal(reference: Tensor, other: Tensor) -> float:
    """Return the inverse of the signal-to-quantization-noise ratio at the logits, as Pandey et al. 2023 rank
    layers by (arXiv:2302.05397, section 3), from two (n, classes) logarithms of class probabilities; what is
    the same for all classes of an image is neither signal nor noise.
    """
    signal, noise = (x - x.mean(dim=1, keepdim=True) for x in (reference, other - reference))
    return float((noise**2).sum() / (signal**2).sum())


SCORES: Mapping[str, Score] = {"kl": divergence, "sqnr": noise_to_signal}
