"""`nas spaces design`: a space whose block types and width windows suit one device."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from hw_profiles.errors import TrilobitError
from nas.design.base import base_of
from nas.design.blocks import Blocks, describe
from nas.design.designed import Designed, design, summary, verdict
from nas.design.distillation import teacher_tensors
from nas.run.config import DataSection, DeviceSection, RunConfig, SpaceSection
from nas.run.defaults import BY_DATA
from nas.run.design_settings import DistillationConfig, Effort
from nas.run.reporting import QUIET, Reporter
from nas.run.run import Run
from nas.search.limits import Limit, parse_limit
from nas.search.objectives import objective
from nas.stages.estimates import measuring_seconds
from nas.stages.profile import start_profile
from supernet.data.images import Images
from supernet.families.staged import BLOCKS
from supernet.families.staged_file import save_space
from supernet.graph.subnet import Subnet, recalibrate
from supernet.tasks.evaluate import CALIBRATION_BATCH, calibration_examples
from supernet.train.checkpoint import content_hash, load_weights
from supernet.train.initial import start_from, weights_path
from supernet.zoo import PREFIX, is_shipped


@dataclass(frozen=True)
class DesignRequest:
    """What a space is designed for.

    Attributes:
        output: folder for `space.json` and what it comes from.
        data: source of the images that blocks learn from.
        device: what they are measured on.
        teacher: a trained supernet: a file, a run folder, or `shipped:NAME`; None takes the one that is
            shipped for the data.
        types: block types; none means all.
        limits: on latency, to design for; none means what half of all random networks meet.
        title: of the space.
        practice, effort: how blocks are trained and judged, and how long the space is looked for.
    """

    output: Path
    data: str = "digits"
    device: str = "ort"
    teacher: str | None = None
    types: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    title: str = "designed"
    practice: DistillationConfig = field(default_factory=DistillationConfig)
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise TrilobitError("--title must not be empty")


def design_space(request: DesignRequest, reporter: Reporter = QUIET) -> dict[str, Any]:
    """Measure how good and how fast the blocks are, and write the best space; return its document.

    Raises:
        TrilobitError: bad options, a teacher that cannot be distilled, or a device that cannot run anything.
    """
    torch.set_num_threads(1)  # stages are small, and what is measured needs the other cores idle
    blocks = open_blocks(request)
    _announce(blocks, reporter)
    blocks.distil(reporter)
    profile = blocks.measure(reporter)
    table = blocks.table(profile.cost_s)
    effort = request.effort
    designed = design(
        table, request.limits, seed=effort.seed, evaluations=effort.evaluations, reporter=reporter
    )
    return _report(blocks, designed, request, reporter)


# -- what is asked for -----------------------------------------------------------------------------


def parse_limits(text: str | None) -> tuple[Limit, ...]:
    """Return the limits on latency that are written in `text`, joined by commas.

    Raises:
        TrilobitError: one cannot be read.
    """
    return tuple(parse_limit(part, objective("latency")) for part in text.split(",")) if text else ()


def _teacher_path(name: str | None, source: str) -> Path:
    """Return the checkpoint that `--teacher` names, or the one that is shipped for the data.

    Raises:
        TrilobitError: there is none.
    """
    defaults = BY_DATA.get(source.partition(":")[0])
    if name is None and defaults is not None and is_shipped(defaults.teacher):
        name = PREFIX + defaults.teacher
    if name is None:
        raise TrilobitError(
            "blocks learn from a trained supernet, and none is shipped for this data: train one with "
            f"`nas train --data {source} -o DIR` and give --teacher DIR"
        )
    path = weights_path(name)
    return path / "supernet" / "last.pt" if path.is_dir() else path


def open_blocks(request: DesignRequest) -> Blocks:
    """Return the blocks that are asked for, as far as they are known.

    Raises:
        TrilobitError: bad options, or a teacher that cannot be distilled.
    """
    practice = request.practice
    path = _teacher_path(request.teacher, request.data)
    weights = load_weights(path)
    config = RunConfig(
        seed=request.effort.seed,
        data=DataSection(request.data),
        device=DeviceSection(name=request.device),
        space=SpaceSection(weights.space),
    )
    run = Run(request.output, config)
    run.device.describe()
    types = list(request.types or BLOCKS)
    base = base_of(run.family, types)
    if not base.distilled_resolutions:
        raise TrilobitError(f"the last maps of {weights.space} are too small to distil")
    teacher, images = _teacher(run, path, practice)
    learned = teacher_tensors(
        teacher, images, practice.judged, stages=len(base.stages), resolutions=base.distilled_resolutions
    )
    return Blocks(run, base, learned, practice, content_hash(path))


def _teacher(run: Run, path: Path, practice: DistillationConfig) -> tuple[Subnet, torch.Tensor]:
    """Return the teacher's largest network, and images (n, c, h, w)."""
    data, family = run.images, run.family
    net = family.supernet(rng=np.random.default_rng(0))
    if start_from(net, load_weights(path), data.classes, origin=str(path)).renewed:
        raise TrilobitError(f"{path}: a teacher must know the classes of this data, this one knows others")
    largest = family.extreme("largest", family.formats[0])
    teacher, pool = family.extract(net, largest), calibration_examples(data, seed=run.config.seed)
    images_needed = min(practice.images + practice.judged, len(pool))
    if images_needed < 2 * practice.judged:
        least = 2 * practice.judged
        raise TrilobitError(
            f"{data.name}: {least} training images are needed to learn from, got {images_needed}"
        )
    few = cast(Images, pool[:images_needed])
    images = data.inputs(few, family.resolution(largest))
    recalibrate(teacher, torch.split(images, CALIBRATION_BATCH))
    return teacher, images


def _announce(blocks: Blocks, reporter: Reporter) -> None:
    """Say what will be done and how long that will take, from timing a step of each type in a stage."""
    missing, practice = blocks.missing(), blocks.practice
    seconds = 0.0
    for distillation in missing:
        net = distillation.new_student()
        training = distillation.train(net, steps=2)
        next(training)  # the first step also warms up
        start = time.perf_counter()
        next(training)
        step_s, start = time.perf_counter() - start, time.perf_counter()
        next(distillation.evaluate(net))
        seconds += practice.steps * step_s + len(distillation.sub_stages) * (time.perf_counter() - start)
    run = blocks.run
    measuring = 0.0 if run.recorded else measuring_seconds(run, blocks.units)
    unknown, base = len(start_profile(run).missing(blocks.units)), blocks.base
    spaces = np.prod([len(base.types) * len(stage.windows) for stage in base.stages])
    reporter.say(
        f"{spaces:,} spaces: {len(base.stages)} stages, {len(base.types)} block types "
        f"({', '.join(base.types)}), widths around those of {run.config.space.name}",
    )
    reporter.say(
        f"to do: {len(missing)} of {len(blocks.distillations)} (stage, type) to distil, about "
        f"{seconds:.0f} s; {unknown} of {len(blocks.units)} units to measure on "
        f"{run.device.describe().name}, about {measuring:.0f} s",
    )


def _report(blocks: Blocks, designed: Designed, request: DesignRequest, reporter: Reporter) -> dict[str, Any]:
    base, evolved = blocks.base, designed.evolved
    space, path = base.space(request.title, evolved.best), request.output / "space.json"
    origin = {
        "device": blocks.run.device.describe().name,
        **summary(designed),
        "teacher": str(blocks.run.config.space.name),
        "data": blocks.run.task.name,
    }
    save_space(path, space, origin)
    for line in describe(base, evolved.best):
        reporter.say(line)
    reporter.say(verdict(designed))
    reporter.say(f"{path}: {space.name}; search it with `nas run --space {path}`")
    return {"space": str(path), "name": space.name, **origin, "stages": list(describe(base, evolved.best))}
