"""The configuration of a run: frozen sections, read from TOML and the command line, written back resolved."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.options import OneOf, Option, Range, Written, check, options
from hw_profiles.registry import DEVICES
from hw_profiles.runtimes.plugin import SECTION, DeviceChoice, builtin_options, choose, device_kind
from nas.run.registry import DEFAULT_STRATEGY, SENSITIVITIES, STRATEGIES
from nas.run.wanted import (
    CLUSTERS,
    NO_CLUSTER,
    PICKS,
    check_cluster,
    check_url,
    parse_aim,
    parse_pick,
    parse_time,
)
from nas.search.limits import Limit, parse_limit
from nas.search.objectives import GROUP, OBJECTIVES, objective
from nas.search.searcher import MILP, SEARCHERS, SLOWER, USUAL
from predictors.registry import DEFAULT as DEFAULT_PREDICTOR
from predictors.registry import PREDICTORS
from supernet.registry import DATA, FAMILIES, FILE, FORMATS, SOURCES
from supernet.train.config import QuantizedPhase, TrainConfig


@dataclass(frozen=True)
class DataSection:
    """Where the data comes from: images are `digits`, `imagefolder:PATH` or `cifar10:PATH`; text is
    `python-tokens`, `python-bytes`, `text:PATH` or `csv:PATH`; or a plug-in's `NAME:...`.
    """

    source: Annotated[str, OneOf(SOURCES, DATA, arguments=True)] = "digits"

    def __post_init__(self) -> None:
        check(self, "data")


@dataclass(frozen=True)
class DeviceSection:
    """What to measure on.

    Attributes:
        name: `ort` (this machine through ONNX Runtime), `tvm` (this machine or a board through TVM),
            `systolic:NAME` (an accelerator's model), `table:FILE` (published measurements) or
            `recorded:PROFILE.json`; options of it may follow, as in `ort:threads=4,provider=CUDA`.
        options: of the device that is named, as those in the name; these go before them.
    """

    name: Annotated[str, OneOf(DEVICES, "trilobit.devices", arguments=True)] = "ort"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self, SECTION)
        if not isinstance(self.options, Mapping):
            raise TrilobitError(f"[{SECTION}.options] must be a table, got {shown(self.options)}")
        choose(self.name, self.options)

    @property
    def choice(self) -> DeviceChoice:
        """The device with its options.

        Raises:
            TrilobitError: no such option, or a value that is not allowed.
        """
        return choose(self.name, self.options)

    @property
    def batch(self) -> int:
        """Images of one inference."""
        return int(self.settings.get("batch", 1))

    @property
    def settings(self) -> dict[str, Any]:
        """All options of the device by name, those that are not told at their defaults."""
        return self.choice.settings

    @staticmethod
    def nested(values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a table of a file or of flags with the device's options below `options`, where they are; one
        that is another device's is left out where it says what files of earlier versions always said.
        """
        own = {key: value for key, value in values.items() if key in ("name", "options")}
        flat = {key: value for key, value in values.items() if key not in own}
        name = own.get("name", "ort")
        try:
            options_of_kind = device_kind(name.partition(":")[0] if isinstance(name, str) else "").table
        except TrilobitError:  # the name's own check says so
            return own
        others = {k: v for k, v in flat.items() if k in options_of_kind or v != _LISTED.get(k, _UNLISTED)}
        options = own.get("options", {})
        return {**own, "options": {**options, **others}} if others and isinstance(options, Mapping) else own


_UNLISTED = object()
# what run.toml said of every device before each had options of its own
_LISTED: Mapping[str, Any] = {
    **{"provider": "CPU", "threads": 1, "batch": 1},
    **{"target": "host", "tracker": "", "key": "", "database": ""},
}


@dataclass(frozen=True)
class ProfileSection:
    """How much of a device to measure; what is not measured is predicted, and the profile says so per unit.

    Attributes:
        share: of the space's units to measure, in 0..1.
        budget: time for the whole profile, such as `2m`; empty takes what it takes.
        sources: profiles of other devices to start from.
    """

    share: Annotated[float, Range(0, 1, above=True, share=True)] = 1.0
    budget: Annotated[str, Written(parse_time, "a time such as 2m")] = ""
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self, "profile")

    def budget_s(self) -> float:
        """Return the budget in seconds; infinite without one.

        Raises:
            TrilobitError: not a time.
        """
        return parse_time(self.budget) if self.budget else float("inf")


@dataclass(frozen=True)
class SpaceSection:
    """Which space to search.

    Attributes:
        name: see `nas spaces`.
        formats: number formats, see `nas formats`; without any, the space's own.
        prefill: of a space of decoders, positions of the prompt that `latency.prefill` is of; 0 takes the
            space's own.
        decode: positions before the one that `latency.decode` is of; 0 takes the space's own.
    """

    name: Annotated[str, OneOf(FAMILIES, "trilobit.spaces", suffix=FILE)] = "digits-mbconv"
    formats: Annotated[tuple[str, ...], OneOf(FORMATS, "trilobit.formats", joined=True)] = ()
    prefill: Annotated[int, Range(0, 1_048_576)] = 0
    decode: Annotated[int, Range(0, 1_048_576)] = 0

    def __post_init__(self) -> None:
        check(self, "space")


@dataclass(frozen=True)
class QuantizedSection:
    """The quantized phase after the training in fp32, in which one set of weights learns all widths.

    Attributes:
        epochs: passes over the training part, also a share of one; 0 leaves the phase out: calibration alone
            is enough for 8 bits, not for fewer.
        batch_size: images per step.
        learning_rate: peak, of the weights.
    """

    epochs: Annotated[float, Range(0, 10_000)] = 0.0
    batch_size: Annotated[int, Range(1, 65_536)] = 64
    learning_rate: Annotated[float, Range(0, 100, above=True)] = 5e-4

    def __post_init__(self) -> None:
        check(self, "quantized")

    def phase(self) -> QuantizedPhase | None:
        """Return what to train; None where the phase is left out.

        Raises:
            TrilobitError: a value that cannot train.
        """
        return QuantizedPhase(**asdict(self)) if self.epochs else None


@dataclass(frozen=True)
class SampleSection:
    """What the accuracy predictor learns from.

    Attributes:
        strategy: which networks are evaluated: `random`, `diverse`, `uncertainty` or `front`.
        fp32: networks in fp32 throughout; they are cheap. None: as many as the learning curve asks for, at
            most 200.
        quantized: networks of random policies. None: likewise, at most 140.
        images: search-validation images, the first ones, that score each of them; 0 takes all. Fewer are
            quicker and noisier; the noise is the same images for every network, so it hardly moves ranks.
    """

    strategy: Annotated[str, OneOf(STRATEGIES)] = DEFAULT_STRATEGY
    fp32: Annotated[int | None, Range(1, 1_000_000)] = None
    quantized: Annotated[int | None, Range(0, 1_000_000)] = None
    images: Annotated[int, Range(0, 100_000_000)] = 0

    def __post_init__(self) -> None:
        check(self, "sample")


@dataclass(frozen=True)
class FitSection:
    """How accuracy is predicted.

    Attributes:
        predictor: `auto`, which weighs several, or one of `boosting`, `gp`, `mlp`, `ridge`,
            `ridge-svr` and `trees`.
        prior: folder of another run, whose accuracies the predictor starts from; of the same space or one of
            the same build, on any data.
    """

    predictor: Annotated[str, OneOf(PREDICTORS, "trilobit.predictors")] = DEFAULT_PREDICTOR
    prior: str = ""

    def __post_init__(self) -> None:
        check(self, "fit")


OF_ONE_ENGINE: Mapping[str, str] = {"aims": "rnsga2", "architecture": MILP, "sensitivity": MILP}


@dataclass(frozen=True)
class SearchSection:
    """How to search.

    Attributes:
        searcher: `evolution`, `nsga2`, `nsga3`, `rnsga2`, `optuna-nsga2`, `tpe`, `aging` or `random`; or
            `milp`, which allocates the number formats of one architecture exactly.
        objectives: names, in order.
        rounds: search on predictions, evaluate finalists for real, learn from them: so many times.
        budget: predicted candidates per round. None: 40,000; 2,000 for Optuna's NSGA-II and 1,000 for its
            TPE, which are slow.
        batch: candidates between two generations.
        finalists: candidates evaluated for real per round.
        exploration: how much the predictor's standard deviations count when candidates are rated and
            finalists are chosen: 1 takes them as they are, 0 goes by the predicted means alone.
        latency_confidence: with which a network is to be within the limit on latency, given the profile's
            error on whole networks: 0.95 leaves a margin; 0.5 goes by the predicted latency.
        focus: whether to search near the limits only, instead of the whole front inside them.
        aims: points that `rnsga2` heads for, such as `accuracy=95%,latency=0.3ms`; without any, the limits.
        architecture: of `milp`: `largest`, `smallest`, the id of a network that the run evaluated, or genes.
        sensitivity: of `milp`, how much a format hurts: `kl`, `sqnr` or `hessian`.
    """

    searcher: Annotated[str, OneOf((*SEARCHERS, MILP), "trilobit.searchers")] = "evolution"
    objectives: Annotated[tuple[str, ...], OneOf(OBJECTIVES, GROUP)] = ("accuracy", "latency", "size")
    rounds: Annotated[int, Range(1, 1_000)] = 3
    budget: Annotated[int | None, Range(1, 1_000_000_000)] = None
    batch: Annotated[int, Range(1, 10_000_000)] = 1_000
    finalists: Annotated[int, Range(1, 1_000_000)] = 24
    exploration: Annotated[float, Range(0, 10)] = 1.0
    latency_confidence: Annotated[float, Range(0.5, 1, below=True, share=True)] = 0.5
    focus: bool = False
    aims: Annotated[tuple[str, ...], Written(parse_aim, "such as accuracy=95%,latency=0.3ms")] = ()
    architecture: str = "largest"
    sensitivity: Annotated[str, OneOf(SENSITIVITIES)] = "kl"

    @property
    def candidates(self) -> int:
        """Predicted per round."""
        return self.budget or SLOWER.get(self.searcher, USUAL).budget

    def __post_init__(self) -> None:
        check(self, "search")
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise TrilobitError(
                f"search.objectives must name at least one objective, each once: {', '.join(self.objectives)}"
            )
        defaults = {f.name: f.default for f in fields(self)}
        for name, searcher in OF_ONE_ENGINE.items():
            value = getattr(self, name)
            if value != defaults[name] and self.searcher != searcher:
                raise TrilobitError(
                    f"search.{name} = {value!r} is for the searcher {searcher}, not for {self.searcher}: "
                    f"write --engine {searcher}, or leave search.{name} out"
                )


@dataclass(frozen=True)
class ExportSection:
    """What to export of the front.

    Attributes:
        pick: which networks, see `nas.export.selection.pick`; nothing means `count` well-spread ones.
        count: how many networks: the fastest, the most accurate and those between.
        dynamic_batch: whether the file takes any number of images at once.
        pixels: whether the file takes uint8 pixels (batch, h, w, c) and normalises them itself.
        portable: whether files compute the same on every processor: int8 with weights of 7 bits.
        library: what a shared library is built for too, such as `host` or `aarch64-linux-gnu:cortex-a76`;
            empty builds one only where the device is measured with TVM, for that.
        exits: whether to write a file of all decoders that a network begins with, too.
        integer_only: whether the library is the network in integers only, whatever its formats: weights and
            what is multiplied in 8 bits, residual streams in 16; without a target it is for this machine.
        finetune: epochs that each is fine-tuned for; 0 ships the supernet's weights. Networks of 8 bits and
            more learn in real numbers by the recipe of the supernet, others quantization-aware by Adam.
        finetune_rate_share: of those in real numbers: peak learning rates, as a share of the recipe's.
        finetune_learning_rate: of the others: peak of Adam.
        sign: PEM file of the ed25519 key that manifests are signed with; empty for none.
    """

    pick: Annotated[tuple[str, ...], Written(parse_pick, PICKS)] = ()
    count: Annotated[int, Range(1, 1_000_000)] = 8
    dynamic_batch: bool = False
    pixels: bool = False
    portable: bool = False
    library: str = ""
    exits: bool = False
    integer_only: bool = False
    finetune: Annotated[int, Range(0, 10_000)] = 0
    finetune_rate_share: Annotated[float, Range(0, 100, above=True)] = 0.2
    finetune_learning_rate: Annotated[float, Range(0, 100, above=True)] = 5e-4
    sign: str = ""

    def __post_init__(self) -> None:
        check(self, "export")
        if self.exits and self.finetune:
            raise TrilobitError(
                "export.exits shares the blocks of one decoder with all shallower ones, and export.finetune "
                "trains each network on by itself; leave one out"
            )
        if self.integer_only and self.finetune:
            raise TrilobitError(
                "export.integer_only rounds the supernet's weights, export.finetune trains others: leave "
                "one of them out"
            )


@dataclass(frozen=True)
class StorageSection:
    """Where evaluations are kept.

    Attributes:
        url: of an Optuna storage, such as `postgresql+psycopg://USER@HOST/DATABASE`; empty keeps them in the
            run folder. A password in it is never written down: later commands take it from PGPASSWORD or
            ~/.pgpass.
    """

    RETIRED: ClassVar[tuple[str, ...]] = ("grace_s",)  # of older run folders

    url: Annotated[str, Written(check_url, "a URL")] = field(default="", repr=False)

    def __post_init__(self) -> None:
        check(self, "storage")


@dataclass(frozen=True)
class ClusterSection:
    """Where networks are evaluated. No result depends on it.

    Attributes:
        address: of a Dask scheduler, such as `tcp://HOST:8786`; `local:N` starts N workers of this machine
            for each command; `none` evaluates in the command itself.
    """

    address: Annotated[str, Written(check_cluster, CLUSTERS)] = NO_CLUSTER

    def __post_init__(self) -> None:
        check(self, "cluster")


class Sectioned:
    """A configuration made of sections."""

    def section(self, name: str) -> Any:
        """Return one section as plain data, for fingerprints."""
        value = getattr(self, name)
        return asdict(value) if hasattr(value, "__dataclass_fields__") else value


@dataclass(frozen=True)
class RunConfig(Sectioned):
    """Everything a run depends on.

    Attributes:
        seed: of everything random.
        constraints: objective name -> limit as people write it, as in `{"latency": "0.3ms", "size": "60%"}`.
    """

    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    data: DataSection = field(default_factory=DataSection)
    device: DeviceSection = field(default_factory=DeviceSection)
    space: SpaceSection = field(default_factory=SpaceSection)
    measure: MeasurePlan = field(default_factory=MeasurePlan)
    profile: ProfileSection = field(default_factory=ProfileSection)
    train: TrainConfig = field(default_factory=TrainConfig)
    quantized: QuantizedSection = field(default_factory=QuantizedSection)
    sample: SampleSection = field(default_factory=SampleSection)
    fit: FitSection = field(default_factory=FitSection)
    search: SearchSection = field(default_factory=SearchSection)
    export: ExportSection = field(default_factory=ExportSection)
    storage: StorageSection = field(default_factory=StorageSection)
    cluster: ClusterSection = field(default_factory=ClusterSection)
    constraints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self, "")
        self.limits()
        self.quantized.phase()

    def limits(self) -> dict[str, Limit]:
        """Return the parsed constraints by objective name.

        Raises:
            TrilobitError: no such objective, or a limit that cannot be read.
        """
        return {
            name: parse_limit(_limit_text(text), objective(name)) for name, text in self.constraints.items()
        }


def _limit_text(limit: Any) -> str:
    """Return a limit as text; a plain number in a file is one too."""
    if isinstance(limit, bool) or not isinstance(limit, str | int | float):
        raise TrilobitError(f"a limit must be text such as '0.3ms' or '60%', got {shown(limit)}")
    return limit if isinstance(limit, str) else shown(limit)


def section_options() -> dict[str, Option]:
    """Return every option of a configuration by its name, `section.key`."""
    listed = list(options(RunConfig, ""))
    for name, section in sections(RunConfig()).items():
        listed += options(type(section), name)
    listed += builtin_options().values()
    return {option.name: option for option in listed}


def sections(config: Any) -> dict[str, Any]:
    """Return the sections of a configuration by name."""
    named = {f.name: getattr(config, f.name) for f in fields(config)}
    return {name: section for name, section in named.items() if hasattr(section, "__dataclass_fields__")}
