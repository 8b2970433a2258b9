"""`damage.json` of a run: what each choice of a number format costs by itself, measured once per supernet."""

from typing import Any

import numpy as np
from torch import Tensor

from hw_profiles.files import read_json, write_json
from hw_profiles.workload import macs
from nas.evaluate import Evaluator
from nas.run import Run
from supernet.evaluate import network_builder
from supernet.quant.damage import Build, Damage, format_choices, measure_damage
from supernet.space import Candidate
from supernet.train.data import to_batch

SCHEMA = "damage/1"
WORK = 1e12  # multiply-adds to spend, about a minute of one core; networks of ImageNet size take more
FEWEST, MOST = 16, 256  # images


def run_damage(run: Run) -> Damage:
    """The damage of the run's trained supernet. What is not in the file yet is measured and written, choice
    by choice, so that a killed run goes on where it was.

    Raises:
        TrilobitError: the file is damaged, or the supernet is not trained.
    """
    document = _document(run)
    options: dict[str, Any] = document["options"]
    space = run.family.space()
    missing = [name for name in format_choices(space) if name not in options]
    if missing:
        largest = run.family.corners()["largest/fp32"]
        for name, values in measure_damage(space, missing, largest, *subject(run, largest)):
            options[name] = values
            write_json(run.folder / "damage.json", document)
    return Damage({name: tuple(values) for name, values in options.items()})


def _document(run: Run) -> dict[str, Any]:
    """What is in the file of this supernet; an empty one for the first time, or after another training."""
    path, trained = run.folder / "damage.json", run.rounded_fingerprint
    found = read_json(path, SCHEMA) if path.exists() else {}
    return found if found.get("supernet") == trained else dict(schema=SCHEMA, supernet=trained, options={})


def subject(run: Run, network: Candidate) -> tuple[Build, Tensor]:
    """How to build policies of a network's architecture, and the images to compare them on."""
    evaluator, family = Evaluator(run), run.family
    options = sum(len(c.options) - 1 for c in family.space().choices if c.kind == "precision")
    work = options * sum(map(macs, family.workload(network).layers))
    images = evaluator.calibration[: int(np.clip(WORK / work, FEWEST, MOST))]
    # learned scales take batch norm's statistics anew for every policy: of as many images
    calibration = evaluator.calibration if evaluator.quantizers is None else images
    shared = (run.dataset, calibration, evaluator.quantizers)
    build = network_builder(family, evaluator.supernet, network, *shared, sums=evaluator.sums)
    return build, to_batch(images, run.dataset, family.resolution(network))
