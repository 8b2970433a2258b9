"""The manifest of an exported network that a search found: what it says, read into nouns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hw_profiles.documents import MismatchError, parse
from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.info import DeviceInfo
from nas.checks.check import Answers, AnyInput
from nas.export.seal import (
    MANIFEST,
    REMEDY,
    Count,
    Digest,
    Files,
    Natural,
    NotNegative,
    Seconds,
    Share,
    read_raw,
)
from supernet.tasks.metric import ACCURACY, METRICS

SCHEMA, FRACTION = "export/3", "fraction"
WITHOUT_DIGEST = "export/2"  # read, with a note that it vouches for less


@dataclass(frozen=True)
class Accuracy:
    """The main metric, usually the share of right labels, through the file: on `n` test examples, and on
    search-validation.

    Attributes:
        test: on the test part, which nothing before export has seen.
        n: test examples.
        validation: on search-validation.
        error: standard error of `test`, the test examples being a sample; None in manifests of earlier
            versions.
    """

    test: NotNegative
    n: Count
    validation: NotNegative
    error: NotNegative | None = None

    @property
    def standard_error(self) -> float:
        """Standard error of `test`; of a share, where the file does not say it, the binomial one."""
        if self.error is not None:
            return self.error
        return math.sqrt(max(0.0, self.test * (1 - self.test)) / self.n)


@dataclass(frozen=True)
class Latency:
    """Seconds of one inference, and of the networks measured in turns with it; None where the device cannot
    run one.

    Attributes:
        replayed: whether the times were looked up, not measured.
        through: what was timed: the ONNX file, or the same network built by another engine.
        load: of the machine then; None where unknown.
        samples_s: one per undisturbed window.
        median_s, iqr_s: median and interquartile range of the samples.
        quiet_share: share of windows that were undisturbed.
        references_s: medians of the networks measured in turns with it, by name.
        ratios: its median over that of each reference.
    """

    samples_s: tuple[Seconds, ...]
    median_s: Seconds
    iqr_s: NotNegative
    quiet_share: Share
    references_s: Mapping[str, Seconds | None]
    ratios: Mapping[str, Seconds | None]
    replayed: bool
    through: str
    load: float | None = None


@dataclass(frozen=True)
class LibraryLatency:
    """Seconds per image of a library, by itself.

    Attributes:
        median_s, iqr_s: median and interquartile range.
        cpu: processor model.
    """

    median_s: Seconds
    iqr_s: NotNegative
    cpu: str


@dataclass(frozen=True)
class LibraryRecord:
    """What a library must do; None what was not measured, since the exporting machine cannot run it.

    Attributes:
        target: what it was compiled for.
        integer_only: whether no floating-point operation stands between image and logits.
        answers: what it answers to made-up images.
        test_accuracy: share of right labels.
        agreement: share of images whose label is that of `model.onnx`.
        parity: share of images whose label is that of the simulation; None in manifests of earlier versions
            too.
        latency: seconds per image.
        own_formats: whether its formats are not those of `model.onnx`: weights and what is multiplied have 8
            bits, residual streams 16 (`--integer-only`).
    """

    target: str
    integer_only: bool
    answers: Answers | None = None
    test_accuracy: Share | None = None
    agreement: Share | None = None
    parity: Share | None = None
    latency: LibraryLatency | None = None
    own_formats: bool = False


@dataclass(frozen=True)
class Finetuning:
    """How a network was trained on, and whether that was kept.

    Attributes:
        epochs: passes over the training images.
        optimiser: that changed its weights.
        learning_rate: its peak.
        rounded: whether it learned with everything rounded as its formats say; else it learned in real
            numbers and was calibrated afterwards. None in manifests of earlier versions.
        before, after: the main metric of both files, by part of the data.
        kept: whether the new weights are those of the file.
    """

    epochs: Count
    kept: bool
    learning_rate: float | None = None
    optimiser: str = ""
    rounded: bool | None = None
    before: Mapping[str, NotNegative] = field(default_factory=dict)
    after: Mapping[str, NotNegative] = field(default_factory=dict)


@dataclass(frozen=True)
class ExitRecord:
    """A way out of a file of several decoders.

    Attributes:
        blocks: before it.
        output: what the file calls its logits.
        validation, test: main metric of the task, through the file.
    """

    blocks: Count
    output: str
    validation: float
    test: float


@dataclass(frozen=True)
class Kernels:
    """How file and simulation compared at export, and the integer kernels of the optimised graph.

    Attributes:
        agreement: share of images on which file and simulation give the same label.
        images: how many were compared.
        integer_layers: layers of the policy that are integers.
        integer_kernels: integer kernels in the graph that the runtime makes of the file.
    """

    agreement: Share
    images: Count
    integer_layers: Natural
    integer_kernels: Natural


@dataclass(frozen=True)
class Prediction:
    """What the search expected of an objective, in SI units; None where it expected nothing.

    Attributes:
        value: in SI units.
        std: standard deviation.
    """

    value: float | None = None
    std: float | None = None


@dataclass(frozen=True)
class Manifest:
    """What an exported network is, and what was measured of it.

    Attributes:
        requires: of the processor, such as `{"integer_sums": "exact"}`; empty where any will do.
        space_fingerprint: of the search space; with the genes it decides the id. None before `export/3`.
        digest: of the manifest itself; None before `export/3`.
        schema: version of this document.
        id: hash of genes and space.
        space: name of the search space.
        genes: one number per choice of the space.
        arch: the architecture, in words of its family.
        policy: number format by layer.
        files: hash and size of every other file, by name.
        opset: ONNX opset of the file.
        data: data set.
        seed: of the run.
        classes: names, in the order of the logits.
        input: what the file reads.
        device: what latency was measured on.
        metric: the main one, which `accuracy` has the values of.
        accuracy: through the file.
        quality: what else is known of its answers on the test part, by metric, compared with those of the
            largest network in fp32; empty in manifests of earlier versions.
        latency: through the file, in seconds; None where its device has no times.
        parity: how file and simulation compared at export.
        answers: labels on made-up images, by which the file is checked elsewhere.
        versions: of the packages that made it.
        predicted: what the search expected, by objective.
        library: of `model.so`, where there is one.
        finetuning: where the network was trained on.
        exits: of `exits.onnx`, where there is one, those of fewest blocks first.
        memory: bytes that it needs on a microcontroller, `arena` and `flash`; empty where nobody asked.
    """

    schema: Literal["export/3", "export/2"]
    id: str
    space: str
    genes: tuple[Natural, ...]
    policy: Mapping[str, str]
    files: Files
    opset: Count
    data: str
    seed: Natural
    classes: tuple[str, ...]
    input: AnyInput
    device: DeviceInfo
    accuracy: Accuracy
    latency: Latency | None
    parity: Kernels
    answers: Answers
    versions: Mapping[str, str]
    predicted: Mapping[str, Prediction | None]
    arch: Mapping[str, Any] = field(default_factory=dict)
    library: LibraryRecord | None = None
    finetuning: Finetuning | None = None
    exits: tuple[ExitRecord, ...] = ()
    memory: Mapping[str, NotNegative] = field(default_factory=dict)
    quality: Mapping[str, NotNegative] = field(default_factory=dict)
    metric: str = ACCURACY.name
    requires: Mapping[str, str] = field(default_factory=dict)
    space_fingerprint: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if self.schema == SCHEMA and (self.digest is None or self.space_fingerprint is None):
            raise ValueError(f"without {'digest' if self.digest is None else 'space_fingerprint'}")
        self._check_shares()
        answered = [self.answers]
        if self.library is not None and self.library.answers is not None:
            answered.append(self.library.answers)
        for answers in answered:
            if not self.input.holds(answers.images):
                shape = self.input.file_shape
                raise ValueError(f"{answers.images} examples of {shape} are too many to make up")
            if max(answers.labels) >= len(self.classes):
                raise ValueError(f"answers.labels: there are {len(self.classes)} classes")

    def _check_shares(self) -> None:
        shares = {metric.name for metric in METRICS if metric.unit == FRACTION}
        values = {f"quality.{name}": value for name, value in self.quality.items() if name in shares}
        if self.metric in shares:
            values |= {f"accuracy.{n}": getattr(self.accuracy, n) for n in ("test", "validation")}
        for name, value in values.items():
            if value > 1:
                raise ValueError(f"{name}: {value:g} is not a share from 0 to 1")


def read_manifest(folder: Path) -> Manifest:
    """Return what the manifest in a folder says; whether that is true is not looked at.

    Raises:
        TrilobitError: there is none, it is of another version, or a field is not what it must be.
    """
    return manifest_of(read_raw(folder, SCHEMA, WITHOUT_DIGEST), folder / MANIFEST)


def manifest_of(document: Mapping[str, Any], path: Path) -> Manifest:
    """Return a document as nouns.

    Raises:
        TrilobitError: a field is not what it must be; the message names `path` and it.
    """
    try:
        return parse(Manifest, document)
    except MismatchError as error:
        raise TrilobitError(f"{path}: {error}; {REMEDY}") from None
