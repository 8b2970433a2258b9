"""Networks as files, checked against their simulation and scored through the file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import LostError
from nas.checks.check import AnsweredFor, Answers, AnyInput, Input, TextInput
from nas.checks.expected import expected_answers
from nas.checks.parity import Parity, check_parity, file_metric, file_outputs
from nas.emit.to_onnx import Normalisation, emit
from nas.evaluation.builder import NetworkBuilder
from nas.export.context import ExportContext
from nas.export.decoder_file import build_decoder
from nas.export.exits import ExitsFile, build_exits
from nas.export.library.target import ExportedLibrary, library_target, own_target
from nas.run.run import Run
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.metric import ACCURACY, Metric, main_metric
from supernet.tasks.task import Outputs, answers, reads


@dataclass(frozen=True)
class Accuracy:
    """The main metric through a file, such as the share of right labels, and the standard error on the test
    part.
    """

    validation: float
    test: float
    error: float | None = None


@dataclass(frozen=True)
class TuningMethod:
    """How a network was fine-tuned.

    Attributes:
        learning_rate: peak of `optimiser`.
        rounded: whether it learned with everything rounded as its formats say; else in real numbers.
    """

    optimiser: str
    learning_rate: float
    rounded: bool


@dataclass(frozen=True, eq=False)
class Tuned:
    """A fine-tuned network, as it may be exported."""

    network: QuantizedGraph
    method: TuningMethod


@dataclass(frozen=True)
class Tuning:
    """What fine-tuning did to a network. The test part is reported and decides nothing."""

    method: TuningMethod
    before: Accuracy
    after: Accuracy
    metric: Metric = ACCURACY

    @property
    def kept(self) -> bool:
        """Whether the fine-tuned weights are exported: they are no worse on search-validation."""
        return self.gain >= 0

    @property
    def gain(self) -> float:
        """By how much the metric is better on search-validation, whatever its direction."""
        difference = self.after.validation - self.before.validation
        return difference if self.metric.direction == "max" else -difference


@dataclass(frozen=True, eq=False)
class Exported:
    """One exported network.

    Attributes:
        context: which network it is.
        model: its ONNX file.
        parity: how file and simulation compare.
        accuracy: through the file.
        quality: its other metrics on the test part, by name, compared with the largest network in fp32.
        reads: what it reads.
        answers: what it must answer to made-up examples.
        tuning: what fine-tuning did; None without.
        library: of the same network; None without.
        exits: of the same network and those that it begins with; None without.
        decoder: its file with a key-value cache; None of what is no decoder.
    """

    context: ExportContext
    model: bytes
    parity: Parity
    accuracy: Accuracy
    reads: AnyInput
    answers: Answers
    quality: Mapping[str, float] = field(default_factory=dict)
    tuning: Tuning | None = None
    library: ExportedLibrary | None = None
    exits: ExitsFile | None = None
    decoder: bytes | None = None


@dataclass(frozen=True, eq=False)
class _Version:
    """A network with one set of weights, its file, and what that reaches."""

    network: QuantizedGraph
    model: bytes
    accuracy: Accuracy
    quality: Mapping[str, float]


def require_exportable(run: Run) -> None:
    """Refuse what is asked of files that networks of this data cannot have, before anything takes time.

    Raises:
        TrilobitError: pixels, or a library in formats of the search, of networks that read text.
    """
    if reads(run.task) != "tokens":
        return
    if run.config.export.pixels:
        raise TrilobitError(f"--pixels: networks of {run.task.name} read text; leave it out")
    if library_target(run) and not run.config.export.integer_only:
        raise TrilobitError(
            f"{run.task.name} is text, and libraries (device tvm, --library) in the formats of a search are "
            "of networks that read images; leave it out, add --integer-only, or take another device, such as "
            "ort"
        )


def original_outputs(builder: NetworkBuilder) -> Outputs:
    """Return what the largest network in fp32 says of the test part, which others are compared with: where
    the device does not run it, by this machine's own runtime.

    Raises:
        LostError: the device is a board that does not answer.
    """
    run = builder.run
    largest = builder.emit(run.family.extreme("largest"))
    try:
        return file_outputs(largest, run.task.test, run.task, run.runtime)
    except LostError:
        raise
    except TrilobitError:
        return file_outputs(largest, run.task.test, run.task)


def build(
    builder: NetworkBuilder, context: ExportContext, tuned: Tuned | None, original: Outputs
) -> Exported:
    """Build the file of a network, with the supernet's weights, or its own where tuning them helped.

    Args:
        original: `original_outputs`.

    Raises:
        DisagreementError: file or library do not give what the simulation gives.
    """
    run, config = builder.run, builder.run.config.export
    version = _own_version(builder, context, original)
    tuning = None
    if tuned is not None:
        changed = _tuned_version(builder, tuned.network, original)
        tuning = Tuning(tuned.method, version.accuracy, changed.accuracy, main_metric(run.task))
        version = changed if tuning.kept else version
    network = version.network
    # resized pixels are rounded, the simulation's are not
    model = builder.file_of(network) if config.pixels else version.model
    parity = check_parity(model, network, run.task.validation, run.task, run.runtime)
    stated = _input(builder, network)
    expected = expected_answers(network, stated)
    inside = builder.integer_only(context.candidate) if config.integer_only else network
    library = _library(builder, inside, model, stated)
    return Exported(
        context=context,
        model=version.model,
        parity=parity,
        accuracy=version.accuracy,
        reads=stated,
        answers=expected,
        quality=version.quality,
        tuning=tuning,
        library=library,
        exits=build_exits(builder, context) if config.exits else None,
        decoder=build_decoder(run.family, context.candidate, network, portable=builder.portable)
        if run.family.scenarios
        else None,
    )


def _library(
    builder: NetworkBuilder, network: QuantizedGraph, model: bytes, reads: AnyInput
) -> ExportedLibrary | None:
    """Return the network's library where one is wanted, which alone needs TVM."""
    if not library_target(builder.run):
        return None
    from nas.export.library.check import export_library

    return export_library(builder.run, network, model, reads)


def _own_version(builder: NetworkBuilder, context: ExportContext, original: Outputs) -> _Version:
    """Build the network with the supernet's weights, which are those that the search measured."""
    run, data = builder.run, builder.run.task
    network = builder.network(context.candidate)
    model = _file(builder, network)
    validation = context.entry.measured[builder.metric].value
    # other weights than those after all, or measured through a library
    if own_target(run) or (builder.portable and not run.sums.reduced):
        validation = file_metric(model, data.validation, data, run.runtime)
    return _version(builder, network, model, validation, original)


def _tuned_version(builder: NetworkBuilder, network: QuantizedGraph, original: Outputs) -> _Version:
    run, data, model = builder.run, builder.run.task, _file(builder, network)
    validation = file_metric(model, data.validation, data, run.runtime)
    return _version(builder, network, model, validation, original)


def _version(
    builder: NetworkBuilder, network: QuantizedGraph, model: bytes, validation: float, original: Outputs
) -> _Version:
    """Return a network with what its file reaches on the test part."""
    run, data = builder.run, builder.run.task
    outputs = file_outputs(model, data.test, data, run.runtime)
    quality = data.evaluate(outputs, data.test, original)
    test, n = quality.pop(main_metric(data).name), len(data.test)
    error = float(data.scores(outputs, data.test).std()) / n**0.5
    return _Version(network, model, Accuracy(validation, test, error), quality)


def _file(builder: NetworkBuilder, network: QuantizedGraph) -> bytes:
    config, pixels = builder.run.config, None
    if config.export.pixels:
        data = builder.run.images
        pixels = Normalisation(data.mean, data.std)
    batch = None if config.export.dynamic_batch else config.device.batch
    return emit(network, batch=batch, pixels=pixels, portable=builder.portable)


def _input(builder: NetworkBuilder, network: QuantizedGraph) -> AnyInput:
    run = builder.run
    if reads(run.task) == "tokens":
        each: AnsweredFor = "examples" if answers(run.task) == "class" else "tokens"
        return TextInput(network.workload.in_size, run.task.channels, each)
    c, h, w = network.workload.in_shape
    return Input((h, w, c), run.images.mean, run.images.std, run.config.export.pixels)
