"""`damage.json` of a run: the sensitivity of each choice of a number format, measured once per supernet.

The file has the name of before the word, so that runs and what reads them stay as they are.
"""

import numpy as np
from torch import Tensor

from hw_profiles.documents import write_document
from hw_profiles.graph.counts import macs
from nas.evaluation.builder import NetworkBuilder
from nas.run.documents import SensitivityFile, read_optional
from nas.run.run import Run
from supernet.sensitivity.kl import Build, FormatSensitivity, format_choices, measure_sensitivity
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
    choices = {choice.name: len(choice.options) for choice in space.choices}
    missing = [name for name in format_choices(space) if len(options.get(name, ())) != choices[name]]
    if missing:
        largest = run.family.extreme("largest")
        for name, values in measure_sensitivity(space, missing, largest, *subject(run, largest)):
            options[name] = tuple(values)
            write_document(path, SensitivityFile(trained, options))
    return FormatSensitivity(options)


def subject(run: Run, network: Candidate) -> tuple[Build, Tensor]:
    """Return how to build policies of a network's architecture, and the images to compare them on."""
    builder, family = NetworkBuilder(run), run.family
    options = sum(len(c.options) - 1 for c in family.space().choices if c.kind == "precision")
    work = options * sum(map(macs, family.workload(network).layers))
    images = builder.calibration[: int(np.clip(WORK / work, FEWEST, MOST))]
    # learned scales take batch norm's statistics anew for every policy: of as many images
    calibration = builder.calibration if builder.quantizers is None else images
    shared = (run.task, calibration, builder.quantizers)
    build = network_builder(family, builder.supernet, network, *shared, sums=builder.sums)
    return build, run.task.inputs(images, family.resolution(network))
