"""A run folder: where its files are, which stages are done, and what everything in it depends on."""

import hashlib
import json
import platform
import subprocess
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hw_profiles.documents import write_document
from hw_profiles.engines import version_of
from hw_profiles.errors import TrilobitError
from hw_profiles.files import remove_abandoned, write_atomic, write_json
from hw_profiles.measure.measurement import MeasurePlan, plan_on
from hw_profiles.redaction import redacted
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.runtimes.analytical.recorded import RecordedDevice
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import HOST, device_kind, host_runtime
from hw_profiles.runtimes.runtime import Dialect, Runtime
from nas.run.config import RunConfig
from nas.run.config_file import read_config, render_config
from nas.run.default_formats import formats_of_layers, with_exact
from nas.run.devices import covering
from nas.run.documents import Environment, StageDone, State, Timings, read_optional
from nas.run.registry import STAGES as STAGES
from nas.search.searcher import SEARCHERS
from predictors.table import distinct_layers
from supernet.families.family import Family, load_family
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_data, require_images
from supernet.tasks.task import Task
from supernet.train.checkpoint import content_hash, load_checkpoint
from supernet.train.initial import NONE, identity, weights_path
from supernet.train.loop import HOST_ONLY
from supernet.train.parallel import current_world, first_alone

GIT_S = 5.0  # to wait for git
# of every run; an engine, and what a searcher brings, come on top
PACKAGES = ("trilobit", "torch", "numpy", "scikit-learn", "optuna", "onnx")


@dataclass(frozen=True)
class Run:
    """A folder and its configuration; what they name is loaded on first use.

    Attributes:
        leader: what the machine that leads the run wrote of it, where this one need not be its device.
    """

    folder: Path
    config: RunConfig
    leader: Environment | None = None

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
        """The family of networks, for this data."""
        data, space = self.task, self.config.space
        load = partial(load_family, space.name, in_channels=data.channels, classes=len(data.classes))
        if space.formats or not self.sums.reduced:
            return load(formats=space.formats or None)
        if self.leader is not None:
            return load(formats=self.leader.formats or None)
        return load(formats=with_exact(load(), self._device))

    @cached_property
    def backend(self) -> Device:
        """The device.

        Raises:
            TrilobitError: no such device, its engine refuses, or it was recorded for another space.
        """
        if isinstance(self._device, RecordedDevice):
            layers = distinct_layers(self.family.space(), self.family.terms())
            return covering(self._device, layers, self.config.device.name)
        return self._device

    @cached_property
    def _device(self) -> Device:
        """As it is before what it lacks of the space is filled in."""
        return self.config.device.choice.open()

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
        if runtime.dialect != Dialect():
            raise TrilobitError(
                f"device {self.config.device.name!r} wants networks written in {runtime.dialect}; "
                f"they are written in {Dialect()}"
            )
        return runtime

    @property
    def recorded(self) -> bool:
        """Whether nothing is measured on the device: its times are looked up or modelled."""
        return not self._device.timed

    @cached_property
    def init(self) -> str:
        """What decides the first weights: `none`, or the content of the checkpoint to start from, wherever
        that is. It may be gone as soon as training from it has begun.

        Raises:
            TrilobitError: there is no such checkpoint.
        """
        init = self.config.train.init
        found = identity(init)
        if found is None and self.checkpoint_path.exists():
            state = load_checkpoint(self.checkpoint_path, fingerprint=self.family.space().fingerprint)
            begun = state.get("config", {}).get("init", NONE)
            found = None if begun == NONE else str(begun)
        return content_hash(weights_path(init)) if found is None else found

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

    # -- files -----------------------------------------------------------------------------------------

    @property
    def profile_path(self) -> Path:
        return self.folder / "profiles" / f"{self.backend.describe().name}.json"

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "supernet" / "last.pt"

    @property
    def quantized_path(self) -> Path:
        """The supernet after its quantized phase."""
        return self.folder / "supernet" / "quantized.pt"

    @property
    def storage_url(self) -> str:
        """Of the Optuna storage that holds every expensive evaluation; it may hold a password."""
        return self.config.storage.url or f"sqlite:///{self.folder / 'run.db'}"

    @property
    def shared(self) -> bool:
        """Whether other machines may evaluate too."""
        return bool(self.config.storage.url)

    @property
    def samples_path(self) -> Path:
        """Which networks were evaluated for the predictor to learn from."""
        return self.folder / "samples.json"

    @property
    def quality_path(self) -> Path:
        return self.folder / "quality.json"

    @property
    def front_path(self) -> Path:
        return self.folder / "front.json"

    @property
    def export_path(self) -> Path:
        return self.folder / "export"

    @property
    def report_path(self) -> Path:
        return self.folder / "report.html"

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
                device = self.backend.describe().to_json()
                data = [self.task.channels, len(self.task.classes)]  # of the first and the last layers
                return [space, *data, config.section("measure"), config.section("profile"), device]
            case "train":
                phase = [config.section("quantized"), *self.sums.identity.values()]
                quantized = phase if config.quantized.epochs else []
                return [space, self.task.fingerprint, self.trained_by, config.seed, *quantized]
            case "sample":
                return [self.rounded_fingerprint, config.section("sample"), config.seed]
            case "fit":
                return [self.fingerprint("sample"), config.section("fit"), *self._prior]
            case "search":
                before = [self.fingerprint("fit"), self.fingerprint("profile")]
                return [*before, config.section("search"), dict(config.constraints)]
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
        """Return whether the stage finished, with this configuration."""
        done = self._state().stages.get(stage)
        return done is not None and done.fingerprint == self.fingerprint(stage)

    def has_finished(self, stage: str) -> bool:
        """Return whether the stage finished at least once, whatever changed since."""
        return stage in self._state().stages

    def mark_done(self, stage: str, seconds: float) -> None:
        """Record that the stage finished, and how long it took (over all attempts that ended)."""
        stages = {**self._state().stages, stage: StageDone(self.fingerprint(stage), round(seconds, 2))}
        write_document(self.folder / "state.json", State(stages))
        timings = Timings({name: done.seconds for name, done in stages.items()})
        write_document(self.folder / "timings.json", timings)

    def _state(self) -> State:
        return read_optional(self.folder / "state.json", State) or State()


def open_run(folder: Path, config: RunConfig, command: str = "") -> Run:
    """Return the run in `folder` with `config`, its `run.toml` and `env.json` written.

    Args:
        command: the line that people wrote; it is kept in `env.json`, but for passwords.

    Raises:
        TrilobitError: the device, the data, the space or the checkpoint to start from does not exist, or an
            engine is not installed; nothing is written then, so that it does not stay in the folder.
        OSError: the folder cannot be written.
    """
    run, world = Run(folder, config), current_world()
    run.backend.describe()
    if run.backend.runtime is not None:  # what is executed later is refused now
        run.runtime.describe()
    with first_alone(world):
        run.family.space()
    environment = _environment(run, command)
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


def _environment(run: Run, command: str) -> dict[str, Any]:
    """Return what the run is computed with, for people who want to know later."""
    versions = {name: version for name in packages_used(run) if (version := version_of(name))}
    return {
        "schema": "env/1",
        "versions": {"python": platform.python_version(), **versions},
        "commit": commit(),
        "command": redacted(command),
        "seed": run.config.seed,
        "init": run.init,
        "integer_sums": str(run.sums),
        "formats": list(formats_of_layers(run.family.space())),
        "host": {"system": platform.platform(), "machine": platform.machine()},
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def packages_used(run: Run) -> tuple[str, ...]:
    """Return the packages that the results of a run depend on; other engines need not be installed."""
    kind = run.config.device.choice.kind
    kinds = [kind] if kind.artifact == "onnx" else [kind, device_kind(HOST)]  # that one runs the files
    engines = dict.fromkeys(package for kind in kinds for package in kind.engines.values())
    searcher = SEARCHERS.get(run.config.search.searcher, "")
    return (*PACKAGES, *engines, *(name for name in ("pymoo", "optuna") if name in searcher))


def commit() -> str | None:
    """Return the commit of these sources, with `-dirty` where they were changed; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no git, or a disk that does not answer
        return None
    return done.stdout.strip() or None
