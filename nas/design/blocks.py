"""What is known of the blocks of a base: their losses in files that a killed run leaves behind, their seconds
in a profile, and both as the table that spaces are scored on.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import write_document
from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import save_profile
from hw_profiles.profiles.profiler import profile_layers
from nas.design.base import Base, DistillationConfig, SubStage, ends_workloads, stage_workload
from nas.design.distillation import INT8, BlockDistillation, StageTensors, losses
from nas.run.documents import read_optional
from nas.run.progress import tell_of_waiting
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from nas.search.space_design import BlockTable, block_table
from nas.stages.profile import random_emitter, start_profile
from predictors.latency.kernels import fill

SAVING_S = 5.0  # between two saves of the profile


@dataclass(frozen=True)
class Losses:
    """`blocks/*.json`: what is lost by each sub-stage in place of a stage of one block type."""

    SCHEMA: ClassVar[str] = "blocks/1"
    REMEDY: ClassVar[str] = "delete it; it is trained again"

    fingerprint: str
    losses: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Blocks:
    """All blocks of a base, on a run's data and device.

    Attributes:
        run: its folder keeps what is found.
        tensors: (stage, resolution) -> what there is to learn.
        teacher: hash of the checkpoint that the tensors come from.
    """

    run: Run
    base: Base
    tensors: Mapping[tuple[int, int], StageTensors]
    practice: DistillationConfig
    teacher: str

    @cached_property
    def distillations(self) -> tuple[BlockDistillation, ...]:
        """Every (stage, type)."""
        all_distillations = []
        for s in range(len(self.base.stages)):
            own = {r: self.tensors[s, r] for r in self.base.distilled_resolutions}
            all_distillations += [
                BlockDistillation(self.base, s, block, own, self.practice, self.run.config.seed)
                for block in self.base.types
            ]
        return tuple(all_distillations)

    # -- losses ------------------------------------------------------------------------------------

    @cached_property
    def _fingerprint(self) -> str:
        described = [self.teacher, self.run.task.fingerprint, asdict(self.base), asdict(self.practice)]
        text = json.dumps([*described, self.run.config.seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def known(self, distillation: BlockDistillation) -> NDArray[np.float64] | None:
        """Return the losses (n,) of its sub-stages; None where they are missing."""
        path = self.run.folder / "blocks" / f"s{distillation.s}-{distillation.block}.json"
        document = read_optional(path, Losses)
        if document is None or document.fingerprint != self._fingerprint:
            return None  # of another teacher, other data or other settings
        block_losses = np.array(document.losses, float)
        return block_losses if block_losses.shape == (len(distillation.sub_stages),) else None

    def missing(self) -> tuple[BlockDistillation, ...]:
        """Return those whose losses are missing."""
        return tuple(distillation for distillation in self.distillations if self.known(distillation) is None)

    def distil(self, reporter: Reporter) -> None:
        """Train and evaluate what is missing, and keep each as soon as it is done."""
        missing, done = self.missing(), 0
        total = sum(self.practice.steps + len(distillation.sub_stages) for distillation in missing)
        with progress_bar(reporter, "distil", total) as update:
            for distillation in missing:
                name = f"stage {distillation.s}, {distillation.block}"

                def step(name: str = name) -> None:
                    nonlocal done
                    done += 1
                    update(done, name)

                block_losses = losses(distillation, step)
                path = self.run.folder / "blocks" / f"s{distillation.s}-{distillation.block}.json"
                write_document(path, Losses(self._fingerprint, tuple(block_losses.tolist())))

    # -- seconds -----------------------------------------------------------------------------------

    def layers(self, part: SubStage) -> tuple[Layer, ...]:
        """Return what a sub-stage runs in int8."""
        return stage_workload(self.base, part, INT8, source_format=INT8).layers

    @cached_property
    def ends(self) -> tuple[tuple[Layer, ...], ...]:
        """What runs before and after the stages, at each of the resolutions."""
        data = self.run.task
        outer_layers = []
        for resolution in self.base.distilled_resolutions:
            works = ends_workloads(
                self.base, resolution, in_channels=data.channels, classes=len(data.classes), fmt=INT8
            )
            outer_layers.append(tuple(layer for work in works for layer in work.layers))
        return tuple(outer_layers)

    @cached_property
    def units(self) -> tuple[Layer, ...]:
        """Every layer of all of them, once."""
        parts = [part for distillation in self.distillations for part in distillation.sub_stages]
        layers = [layer for part in parts for layer in self.layers(part)]
        return tuple(dict.fromkeys([*layers, *(layer for end in self.ends for layer in end)]))

    def measure(self, reporter: Reporter) -> DeviceProfile:
        """Return the profile of the units; those whose numbers are refused are predicted."""
        run, profile = self.run, start_profile(self.run)
        rng, saving = np.random.default_rng(run.config.seed), 0.0
        with (
            progress_bar(reporter, "units", len(self.units)) as update,
            tell_of_waiting(lambda note: update(len(self.units) - len(profile.missing(self.units)), note)),
        ):
            for grown in profile_layers(run.device, profile, self.units, emit=random_emitter(run), rng=rng):
                profile = grown
                update(len(self.units) - len(profile.missing(self.units)), "units measured")
                if time.monotonic() >= saving:
                    save_profile(profile, run.profile_path)
                    saving = time.monotonic() + SAVING_S
        if any(unit not in profile.table or profile.unreliable(unit) for unit in self.units):
            profile = fill(profile, self.units, rng=rng)
        save_profile(profile, run.profile_path)
        return profile

    def table(self, seconds: Callable[[Layer], float]) -> BlockTable:
        """Return losses and seconds of all sub-stages that the device can run.

        Args:
            seconds: of a layer; infinite where the device cannot run it.

        Raises:
            TrilobitError: losses are missing, or the device cannot run what a network needs.
        """
        cost_s = cache(seconds)
        constant_s = [sum(map(cost_s, layers)) for layers in self.ends]
        if not all(map(math.isfinite, constant_s)):
            name = self.run.device.describe().name
            raise TrilobitError(f"{name} cannot run the first or the last layers of these networks in int8")
        groups: dict[tuple[int, int, int, int], list[tuple[float, float]]] = {}
        for distillation in self.distillations:
            block_losses = self.known(distillation)
            if block_losses is None:
                raise TrilobitError(
                    f"the losses of stage {distillation.s}, {distillation.block}, are not known yet"
                )
            for part, loss in zip(distillation.sub_stages, block_losses, strict=True):
                at = (distillation.s, self.base.types.index(distillation.block), part.window)
                row = (float(loss), sum(map(cost_s, self.layers(part))))
                if math.isfinite(row[1]):
                    groups.setdefault(
                        (*at, self.base.distilled_resolutions.index(part.resolution)), []
                    ).append(row)
        return block_table({at: np.array(rows) for at, rows in groups.items()}, constant_s=constant_s)


def describe(base: Base, genes: NDArray[np.int16]) -> Sequence[str]:
    """Describe a space in words, a stage each."""
    n = len(base.stages)
    return [
        f"stage {s}: {base.types[genes[s]]}, widths {', '.join(map(str, stage.windows[genes[n + s]]))}"
        for s, stage in enumerate(base.stages)
    ]
