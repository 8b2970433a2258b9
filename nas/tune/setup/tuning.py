"""A tune: what its configuration names, where its files are, and what everything in it depends on."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.formats import FP32
from hw_profiles.measure.measurement import MeasurePlan, plan_on
from hw_profiles.runtimes.device import Device, MeasuredDevice
from hw_profiles.runtimes.runtime import CountsMemory, Runtime
from hw_profiles.streams import Stream, open_stream
from nas.checks.model_notes import is_quantized
from nas.checks.open_model import OpenedModel, open_content
from nas.emit.layer_formats import UnitFormats, require_covered
from nas.emit.unit_formats import unit_formats
from nas.evaluation.micro import counted
from nas.run.paths import EXAMPLE, TunePaths
from nas.run.stage_record import StageRecord
from nas.run.tune_config import TuneConfig
from nas.tune.policies.costs import TunedCosts, costs_of
from nas.tune.policies.space import policy_space
from nas.tune.setup.libraries import Write, times_files, with_files, writer
from nas.tune.setup.original import bound_specs, original_file
from supernet.data.preprocessing import parse_preprocessing
from supernet.data.read_samples import MOST, read_samples, sample_shapes
from supernet.data.samples import SampleParts, Samples
from supernet.data.split_samples import CHOOSING, split_samples
from supernet.imported.fixed_value import Fixed
from supernet.imported.fixing import agreed
from supernet.imported.input_specs import Reads, input_specs
from supernet.imported.model import ImportedModel
from supernet.ptq.policy_graph import FOLLOWING
from supernet.space.space import SearchSpace

SAMPLES_BYTES = 2**30  # of all examples together; of more, evenly chosen ones are read
LOADED = (
    *("original", "samples", "fixed", "opened", "device", "costs"),
    *("unit_formats", "write", "formats", "space"),
)
Count = Callable[[bytes], Mapping[str, float]]  # of a file: bytes by name of the cost
TYPICAL_SIZE = 256  # of a dimension that is open, before any example is seen


@dataclass(frozen=True)
class Tuning(TunePaths):
    """A folder and its configuration; what they name is loaded on first use."""

    def with_config(self, config: TuneConfig) -> "Tuning":
        """Return it with another configuration, of how much is done: what was loaded is not loaded again.

        Args:
            config: names the same model, examples, device and formats.
        """
        changed = replace(self, config=config)
        changed.__dict__.update({name: self.__dict__[name] for name in LOADED if name in self.__dict__})
        return changed

    @cached_property
    def original(self) -> bytes:
        """The model as it was given, whole: the folder's own copy where the file is gone.

        Raises:
            TrilobitError: there is none, or it is no ONNX file.
        """
        source = Path(self.config.model.source)
        if not source.is_file() and self.original_path.is_file():
            return self.original_path.read_bytes()
        return original_file(source)

    @cached_property
    def reads(self) -> Reads:
        """What the model reads, as its file says it.

        Raises:
            TrilobitError: it is no ONNX file, or an input cannot be fixed as the configuration says.
        """
        return input_specs(self.original, self.config.model.fixed)

    @cached_property
    def fixed(self) -> Fixed:
        """Value of inputs that always have the same: as the configuration says, else of those that decide
        what runs and are the same in all examples.
        """
        if self.config.model.fix:
            return self.config.model.fixed
        return agreed(self.reads.deciding, self.samples.inputs)

    @cached_property
    def samples(self) -> Samples:
        """All examples.

        Raises:
            TrilobitError: there are none, or they are not what the model reads.
        """
        section = self.config.samples
        specs = bound_specs(self.reads.specs, self.config.model.shapes)
        sizes = [[d if isinstance(d, int) else TYPICAL_SIZE for d in spec.shape] for spec in specs]
        each = sum(
            4 * math.prod(size[1:] if spec.batched else size) for spec, size in zip(specs, sizes, strict=True)
        )
        most = min(section.count or MOST, max(64, SAMPLES_BYTES // max(1, each)))
        return read_samples(
            section.source,
            specs,
            parse_preprocessing(section.preprocessing),
            metadata=self.reads.metadata,
            labels=section.labels or None,
            most=most,
        )

    @cached_property
    def parts(self) -> SampleParts:
        """The examples in three disjoint parts."""
        section = self.config.tune
        rng = open_stream(self.config.seed, Stream.TUNE_SAMPLES)
        parts = split_samples(self.samples, rng=rng, choosing=section.choosing or CHOOSING)
        judged = np.arange(min(len(parts.judging), section.judging or len(parts.judging)))
        return SampleParts(parts.calibration, parts.choosing, parts.judging[judged])

    @property
    def model(self) -> ImportedModel:
        """The imported model."""
        return self.opened.model

    @cached_property
    def opened(self) -> OpenedModel:
        """The model, its open dimensions bound by the configuration, else by the examples.

        Raises:
            TrilobitError: it cannot be tuned, or run on the first example, or what it gives are no numbers.
        """
        shapes = {**sample_shapes(self.samples), **self.config.model.shapes}
        source, device = self.config.model.source, str(self.config.device.choice)
        how: dict[str, Any] = {"device": device, "fixed": self.fixed, "name": source}
        opened = open_content(self.original, shapes, feeds=self.samples.feed(0), **how)
        if opened.facts.failed:
            raise TrilobitError(f"{source} cannot be run on the first example: {opened.facts.failed}")
        if opened.facts.not_finite:
            outputs = ", ".join(opened.facts.not_finite)
            raise TrilobitError(
                f"{source} gives NaN or infinity in {outputs} for the first example, in fp32: it cannot be "
                "compared with anything; are the examples what it was trained on (--mean, --std, --scale)?"
            )
        return opened

    @cached_property
    def device(self) -> Device:
        """What is measured.

        Raises:
            TrilobitError: there is no such device, or it runs no files.
        """
        device = with_files(self.config.device.choice.open())
        if device.runtime is None:
            raise TrilobitError(
                f"device {self.config.device.name!r} executes nothing; `nas tune` measures files: use ort"
            )
        return device

    @property
    def measured_device(self) -> MeasuredDevice:
        """The device, which executes files."""
        assert isinstance(self.device, MeasuredDevice)
        return self.device

    @cached_property
    def costs(self) -> TunedCosts:
        """What quality is weighed against.

        Raises:
            TrilobitError: the device does not have one of them.
        """
        return costs_of(self.device, self.config.tune.objectives, tuple(self.config.constraints))

    @property
    def count(self) -> Count | None:
        """What counts what files need on a microcontroller; None where nobody asks."""
        runtime = self.runtime
        return partial(counted, runtime) if self.costs.memory and isinstance(runtime, CountsMemory) else None

    @cached_property
    def example(self) -> dict[str, NDArray[Any]]:
        """What files read while they are timed."""
        feed = self.parts.calibration.feed(0)
        return {name: np.array(array, order="C") for name, array in feed.items()}

    @property
    def runtime(self) -> Runtime:
        """What runs the files."""
        runtime = self.device.runtime
        assert runtime is not None
        return runtime

    @property
    def times_original(self) -> bool:
        """Whether the model's own file is timed beside those of its policies; else its library in fp32 is."""
        return times_files(self.runtime)

    @property
    def plan(self) -> MeasurePlan:
        """How to measure here."""
        return plan_on(self.config.measure, self.runtime.clock)

    @cached_property
    def unit_formats(self) -> Mapping[str, UnitFormats]:
        """What each unit may be in on this runtime, and why not in what else."""
        formats = unit_formats(self.model, self.runtime)
        if self.runtime.artifact != "onnx":
            require_covered(self.model, formats, self.runtime.describe().engine)
        return formats

    @cached_property
    def write(self) -> Write:
        """What writes the file of a policy that this runtime runs."""
        return writer(self.runtime)

    @cached_property
    def formats(self) -> dict[str, tuple[str, ...]]:
        """Formats that the search chooses from, by unit."""
        offered = self.config.tune.formats
        return {
            name: tuple(f for f in unit.allowed if f != FP32 and (not offered or f in offered))
            for name, unit in self.unit_formats.items()
        }

    @cached_property
    def calibrated_formats(self) -> dict[str, tuple[str, ...]]:
        """Formats by unit that numbers are found for: own kernels compute more units on integers than pay on
        ONNX Runtime, which needs the ranges of what these give.
        """
        if self.runtime.artifact == "onnx":
            return self.formats
        follow = {name: (FOLLOWING,) for name, unit in self.unit_formats.items() if unit.follows}
        return {**self.formats, **follow}

    @cached_property
    def space(self) -> SearchSpace:
        """All policies.

        Raises:
            TrilobitError: no unit can have another format than fp32; says why.
        """
        space = policy_space(self.model, self.formats)
        if not space.choices:
            raise TrilobitError(f"nothing can be tuned: {self._why_nothing()}")
        return space

    def _why_nothing(self) -> str:
        quantized = [op for op in self.opened.outline.operations if is_quantized(op)]
        if quantized and not self.config.tune.formats:
            return (
                f"the model is quantized already ({', '.join(quantized)}), and what is left in fp32 cannot "
                f"be in another format on {self.config.device.name}; give the model from before that"
            )
        reasons = [reason for unit in self.unit_formats.values() for reason in unit.refused.values()]
        reasons = reasons or ["no unit multiplies stored numbers"]
        commonest = max(dict.fromkeys(reasons), key=reasons.count)
        only = f"of {', '.join(self.config.tune.formats)} " if self.config.tune.formats else ""
        return f"no unit can have another format {only}than fp32 on {self.config.device.name} ({commonest})"

    # -- what is done ----------------------------------------------------------------------------------

    def fingerprint(self, stage: str) -> str:
        """Hash of everything the stage's result depends on, the stages before it included."""
        return _hash(self._depends(stage))

    def _depends(self, stage: str) -> list[Any]:
        config = self.config
        info = self.device.describe()
        match stage:
            case "import":
                digest = hashlib.sha256(self.original).hexdigest()
                return [digest, config.section("model")["shape"], *sorted(self.fixed.items())]
            case "calibrate":
                calibrated: list[Any] = [
                    hashlib.sha256(self.model.content).hexdigest(),
                    _of_samples(self.parts.calibration),
                    sorted(self.model.bound.items()),
                ]
                formats: list[Any] = [sorted(self.calibrated_formats.items()), info.sums.identity]
                return [self.fingerprint("import"), calibrated, formats, config.seed]
            case "profile":
                how: list[Any] = [info.to_json(), config.section("measure")]
                return [self.fingerprint("calibrate"), how, config.seed]
            case "sample":
                engine: list[Any] = [info.engine, info.engine_version, info.cpu]
                parts: list[Any] = [_of_samples(self.parts.choosing), _of_samples(self.parts.judging)]
                section: list[Any] = [config.tune.evaluations, config.tune.metric, config.tune.budget]
                section += [config.tune.metric_direction, config.tune.outputs, *self.costs.memory[:1]]
                return [self.fingerprint("calibrate"), engine, parts, section, config.seed]
            case "search":
                section = [config.tune.rounds, config.tune.finalists, dict(config.constraints)]
                section += [config.tune.objectives] if config.tune.objectives else []
                return [self.fingerprint("sample"), self.fingerprint("profile"), section]
            case "export":
                return [self.fingerprint("search"), config.tune.count]
        return [self.fingerprint("export")]

    def is_done(self, stage: str) -> bool:
        """Return whether the stage finished, with this configuration, and what it wrote is still there."""
        results = {
            "import": (self.original_path, self.folder / EXAMPLE),
            "calibrate": (self.quantization_path,),
            "profile": (self.latency_path,) if self.costs.timed else (),
            "search": (self.front_path,),
            "export": (self.export_path,),
        }
        return StageRecord(self.folder).is_done(stage, self.fingerprint(stage), results.get(stage, ()))

    def mark_done(self, stage: str, seconds: float) -> None:
        """Record that the stage finished, and how long it took."""
        StageRecord(self.folder).mark_done(stage, self.fingerprint(stage), seconds)


def _hash(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, default=str).encode()).hexdigest()[:16]


def _of_samples(samples: Samples) -> str:
    digest = hashlib.sha256()
    for name, array in samples.inputs.items():
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).data)
    if samples.labels is not None:
        digest.update(np.ascontiguousarray(samples.labels).data)
    return digest.hexdigest()[:16]
