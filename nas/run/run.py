"""A run: what its configuration names, which stages are done, and what everything in it depends on."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.files import remove_abandoned, write_atomic, write_json
from hw_profiles.measure.measurement import MeasurePlan, plan_on
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Dialect, Runtime
from nas.run.cluster import Cluster
from nas.run.config import RunConfig
from nas.run.config_file import read_config, render_config
from nas.run.default_formats import formats_of_layers, with_exact
from nas.run.devices import covering
from nas.run.documents import Environment
from nas.run.environment import environment_of
from nas.run.paths import RunPaths
from nas.run.registry import STAGES as STAGES
from nas.run.stage_record import StageRecord
from predictors.table import profiled_layers
from supernet.families.family import Family, asked_for, load_family
from supernet.tasks.fit import require_readable
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_data, require_images
from supernet.tasks.task import Task
from supernet.train.checkpoint import content_hash, load_checkpoint
from supernet.train.initial import NONE, identity, weights_path
from supernet.train.loop import HOST_ONLY
from supernet.train.parallel import current_world, first_alone


@dataclass(frozen=True)
class Run(RunPaths):
    """A folder and its configuration; what they name is loaded on first use.

    Attributes:
        leader: what the process that leads the run says of it, where this machine need not be its device.
        cluster: evaluates for it; None evaluates in this process.
    """

    leader: Environment | None = None
    cluster: Cluster | None = field(default=None, compare=False, repr=False)

    @cached_property
    def task(self) -> Task:
        """The data in its three parts, with its loss and metrics."""
        return load_data(self.config.data.source, seed=self.config.seed, cache=self.folder / "data")

    @property
    def images(self) -> ImageClassification:
        """The task, where it is one of images of classes.

        Raises:
            TrilobitError: it is another one.
        """
        return require_images(self.task)

    @cached_property
    def family(self) -> Family:
        """The family of networks, for this data.

        Raises:
            TrilobitError: its networks read something else.
        """
        family, space = self._family(), self.config.space
        require_readable(self.task, family)
        return asked_for(family, prompt=space.prefill, past=space.decode)

    def _family(self) -> Family:
        data, space = self.task, self.config.space
        load = partial(load_family, space.name, in_channels=data.channels, classes=len(data.classes))
        if space.formats or not self.sums.reduced:
            return load(formats=space.formats or None)
        if self.leader is not None:
            return load(formats=self.leader.formats or None)
        return load(formats=with_exact(load(), self._device))

    @cached_property
    def device(self) -> Device:
        """The device.

        Raises:
            TrilobitError: no such device, its engine refuses, or it was recorded for another space.
        """
        if isinstance(self._device, RecordedDevice):
            layers = profiled_layers(self.family)
            return covering(self._device, layers, self.config.device.name)
        return self._device

    @cached_property
    def _device(self) -> Device:
        """As it is before what it lacks of the space is filled in."""
        return self.config.device.choice.open()

    @property
    def on_board(self) -> bool:
        """Whether the device is another machine, reached over ssh or adb."""
        return bool(self.config.device.choice.kind.machine)

    @property
    def finalists_cluster(self) -> Cluster | None:
        """The cluster that is asked about finalists; None where they run on a board, to which workers need no
        way.
        """
        return None if self.on_board else self.cluster

    @property
    def plan(self) -> MeasurePlan:
        """How to measure here."""
        runtime = self._device.runtime
        return plan_on(self.config.measure, runtime.clock if runtime else "thread")

    @cached_property
    def runtime(self) -> Runtime:
        """What runs the files that are shipped: the device's own where it takes them, else this machine's.

        Raises:
            TrilobitError: it wants them written otherwise than they are.
        """
        own = self._device.runtime
        runtime = own if own is not None and own.artifact == "onnx" else host_runtime()
        if str(runtime.dialect) != str(Dialect()):
            raise TrilobitError(
                f"device {self.config.device.name!r} wants networks written in {runtime.dialect}; "
                f"they are written in {Dialect()}"
            )
        return runtime

    @property
    def recorded(self) -> bool:
        """Whether nothing is measured on the device: its times are looked up or modelled."""
        return not self._device.timed

    @property
    def timeless(self) -> bool:
        """Whether nothing says how long networks take on the device."""
        return self._device.describe().timeless

    @cached_property
    def init(self) -> str:
        """What decides the first weights: `none`, or the content of the checkpoint to start from, wherever
        that is. It may be gone as soon as training from it has begun.

        Raises:
            TrilobitError: there is no such checkpoint.
        """
        init = self.config.train.init
        origin = identity(init)
        if origin is None and self.checkpoint_path.exists():
            state = load_checkpoint(self.checkpoint_path, fingerprint=self.family.space().fingerprint)
            begun = state.get("config", {}).get("init", NONE)
            origin = None if begun == NONE else str(begun)
        return content_hash(weights_path(init)) if origin is None else origin

    @property
    def trained_by(self) -> dict[str, Any]:
        """The part of the training section that decides the weights, what they begin with among it."""
        section = self.config.section("train")
        return {**{k: v for k, v in section.items() if k not in HOST_ONLY}, "init": self.init}

    @property
    def sums(self) -> IntegerSums:
        """What the device's integer kernels do with large sums: its networks' weights are rounded for it."""
        if self.leader is not None and self.leader.integer_sums is not None:
            return IntegerSums(self.leader.integer_sums)
        return self._device.describe().sums

    @property
    def profile_path(self) -> Path:
        return self.folder / "profiles" / f"{self.device.describe().name}.json"

    # -- what is done ----------------------------------------------------------------------------------

    def fingerprint(self, stage: str) -> str:
        """Hash of everything the stage's result depends on, the stages before it included."""
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}")
        return hashlib.sha256(json.dumps(self._depends(stage), default=str).encode()).hexdigest()[:16]

    @property
    def rounded_fingerprint(self) -> str:
        """Hash of everything that the accuracy of a network on the supernet depends on: its training, and how
        the device has weights rounded.
        """
        return "-".join((self.fingerprint("train"), *self.sums.identity.values())).replace(" ", "")

    def _depends(self, stage: str) -> list[Any]:
        config, space = self.config, self.family.space().fingerprint
        match stage:
            case "profile":
                device = self.device.describe().to_json()
                data = [self.task.channels, len(self.task.classes)]  # of the first and the last layers
                timed = [self.family.scenarios] if self.family.scenarios else []
                return [space, *data, config.section("measure"), config.section("profile"), device, *timed]
            case "train":
                phase = [config.section("quantized"), *self.sums.identity.values()]
                quantized = phase if config.quantized.epochs else []
                return [space, self.task.fingerprint, self.trained_by, config.seed, *quantized]
            case "sample":
                return [self.rounded_fingerprint, config.section("sample"), config.seed]
            case "fit":
                return [self.fingerprint("sample"), config.section("fit"), *self._prior]
            case "search":
                inputs = [self.fingerprint("fit"), self.fingerprint("profile")]
                return [*inputs, config.section("search"), dict(config.constraints)]
            case "export":
                return [self.fingerprint("search"), config.section("export")]
        return [self.fingerprint("export")]

    @property
    def _prior(self) -> list[str]:
        """What the predictor starts from: the content of that run's samples."""
        if not self.config.fit.prior:
            return []
        samples = Path(self.config.fit.prior) / self.samples_path.name
        return [content_hash(samples) if samples.exists() else "absent"]

    def is_done(self, stage: str) -> bool:
        """Return whether the stage finished, with this configuration, and what it wrote is still there."""
        results = {
            "profile": (self.profile_path,),
            "train": (self.checkpoint_path,),
            "sample": (self.samples_path,),
            "search": (self.front_path,),
            "export": (self.export_path,),
        }
        return StageRecord(self.folder).is_done(stage, self.fingerprint(stage), results.get(stage, ()))

    def has_finished(self, stage: str) -> bool:
        """Return whether the stage finished at least once, whatever changed since."""
        return StageRecord(self.folder).has_finished(stage)

    def mark_done(self, stage: str, seconds: float) -> None:
        """Record that the stage finished, and how long it took (over all attempts that ended)."""
        StageRecord(self.folder).mark_done(stage, self.fingerprint(stage), seconds)


def open_run(folder: Path, config: RunConfig, command: str = "", *, cluster: Cluster | None = None) -> Run:
    """Return the run in `folder` with `config`, its `run.toml` and `env.json` written.

    Args:
        command: the line that people wrote; it is kept in `env.json`, but for passwords.
        cluster: evaluates for the run.

    Raises:
        TrilobitError: the device, the data, the space or the checkpoint to start from does not exist, or an
            engine is not installed; nothing is written then, so that it does not stay in the folder.
        OSError: the folder cannot be written.
    """
    run, world = Run(folder, config, cluster=cluster), current_world()
    run.device.describe()
    if run.device.runtime is not None:  # what is executed later is refused now
        run.runtime.describe()
    with first_alone(world):
        run.family.space()
    formats = formats_of_layers(run.family.space())
    environment = environment_of(config, command, init=run.init, sums=run.sums, formats=formats)
    if world.writes:
        remove_abandoned(folder)
        write_atomic(folder / "run.toml", render_config(config))
        write_json(folder / "env.json", environment)
    return run


def find_run(folder: Path) -> Run:
    """Open the run that is in `folder`.

    Raises:
        TrilobitError: there is none.
    """
    if not (folder / "run.toml").exists():
        raise TrilobitError(f"{folder}: not a run folder (no run.toml); start one with `nas run -o {folder}`")
    return Run(folder, read_config(folder / "run.toml"))
