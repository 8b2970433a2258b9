"""The configuration of a run: frozen sections, read from TOML and the command line, written back resolved."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from hw_profiles.errors import TrilobitError
from hw_profiles.measurement import MeasurePlan
from nas import sampling
from nas.objectives import Limit, objective, parse_limit
from nas.search.searcher import MILP, SLOWER, USUAL
from supernet.train.loop import TrainConfig
from supernet.train.quantized import QuantizedPhase


@dataclass(frozen=True)
class DataSection:
    """Where the images come from: `digits`, `imagefolder:PATH`, `cifar10:PATH`."""

    source: str = "digits"


@dataclass(frozen=True)
class DeviceSection:
    """What to measure on.

    Attributes:
        name: `ort` (this machine through ONNX Runtime), `tvm` (this machine or a board through TVM),
            `systolic:NAME` (an accelerator's model), `table:FILE` (published measurements) or
            `recorded:PROFILE.json`.
        provider: ONNX Runtime execution provider.
        threads: threads of one inference.
        batch: images of one inference.
        target: what TVM compiles for: `host`, or for example `aarch64-linux-gnu:cortex-a76`.
        tracker: HOST:PORT of a TVM RPC tracker; empty measures on this machine.
        key: which of the tracker's boards.
        database: folder of TVM's tuned units; empty takes the user's cache folder.
    """

    name: str = "ort"
    provider: str = "CPU"
    threads: int = 1
    batch: int = 1
    target: str = "host"
    tracker: str = ""
    key: str = ""
    database: str = ""


@dataclass(frozen=True)
class ProfileSection:
    """How much of a device to measure; what is not measured is predicted, and the profile says so per unit.

    Attributes:
        share: of the space's units to measure, in 0..1.
        budget: time for the whole profile, such as `2m`; empty takes what it takes.
        sources: profiles of other devices to start from.
    """

    share: float = 1.0
    budget: str = ""
    sources: tuple[str, ...] = ()

    def budget_s(self) -> float:
        """Seconds; infinite without a budget.

        Raises:
            TrilobitError: not a time.
        """
        return parse_time(self.budget) if self.budget else float("inf")


@dataclass(frozen=True)
class SpaceSection:
    """Which space to search, see `nas spaces`, and with which number formats, see `nas formats`; without any,
    with the space's own.
    """

    name: str = "digits-mbconv"
    formats: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantizedSection:
    """The quantized phase after the training in fp32, in which one set of weights learns all widths.

    Attributes:
        epochs: passes over the training part, also a share of one; 0 leaves the phase out: calibration alone
            is enough for 8 bits, not for fewer.
        batch_size: images per step.
        learning_rate: peak, of the weights.
    """

    epochs: float = 0.0
    batch_size: int = 64
    learning_rate: float = 5e-4

    def phase(self) -> QuantizedPhase | None:
        """What to train; None where the phase is left out.

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

    strategy: str = sampling.DEFAULT
    fp32: int | None = None
    quantized: int | None = None
    images: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in sampling.STRATEGIES:
            known = ", ".join(sampling.STRATEGIES)
            raise TrilobitError(f"unknown sample.strategy {self.strategy!r}; known: {known}")
        if self.quantized is not None and self.quantized < 0:
            raise TrilobitError(f"sample.quantized must be at least 0, got {self.quantized}")


@dataclass(frozen=True)
class FitSection:
    """How accuracy is predicted.

    Attributes:
        predictor: `auto`, which weighs several, or one of `boosting`, `gp`, `mlp`, `ridge` and `trees`.
        prior: folder of another run, whose accuracies the predictor starts from; of the same space or one of
            the same build, on any data.
    """

    predictor: str = "auto"
    prior: str = ""


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
        latency_confidence: with which a network is to be within the limit on latency, given the profile's
            error on whole networks: 0.95 leaves a margin; 0.5 goes by the predicted latency.
        focus: whether to search near the limits only, instead of the whole front inside them.
        aims: points that `rnsga2` heads for, such as `accuracy=95%,latency=0.3ms`; without any, the limits.
        architecture: of `milp`: `largest`, `smallest`, the id of a network that the run evaluated, or genes.
        sensitivity: of `milp`, how much a format hurts: `kl`, `sqnr` or `hessian`.
    """

    searcher: str = "evolution"
    objectives: tuple[str, ...] = ("accuracy", "latency", "size")
    rounds: int = 3
    budget: int | None = None
    batch: int = 1_000
    finalists: int = 24
    latency_confidence: float = 0.5
    focus: bool = False
    aims: tuple[str, ...] = ()
    architecture: str = "largest"
    sensitivity: str = "kl"

    @property
    def candidates(self) -> int:
        """Predicted per round."""
        return self.budget or SLOWER.get(self.searcher, USUAL).budget

    def __post_init__(self) -> None:
        if not 0.5 <= self.latency_confidence < 1:
            raise TrilobitError(
                f"search.latency_confidence must be at least 0.5 and below 1, got {self.latency_confidence}"
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
        library: what a shared library is built for too, such as `host` or `aarch64-linux-gnu:cortex-a76`;
            empty builds one only where the device is measured with TVM, for that.
        finetune: epochs that each is fine-tuned for, in its formats; 0 ships the supernet's weights.
        finetune_learning_rate: peak of that.
    """

    pick: tuple[str, ...] = ()
    count: int = 8
    dynamic_batch: bool = False
    pixels: bool = False
    library: str = ""
    finetune: int = 0
    finetune_learning_rate: float = 5e-4


@dataclass(frozen=True)
class StorageSection:
    """Where evaluations are kept when several machines work on one run.

    Attributes:
        url: of an Optuna storage, such as `postgresql+psycopg://USER@HOST/DATABASE`; empty keeps them in the
            run folder. A password in it is never written down: later commands take it from PGPASSWORD or
            ~/.pgpass.
        grace_s: after so many seconds without a sign of life a worker counts as lost, and its evaluation is
            done again.
    """

    url: str = field(default="", repr=False)
    grace_s: int = 60


@dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on.

    Attributes:
        seed: of everything random.
        constraints: objective name -> limit as people write it, as in `{"latency": "0.3ms", "size": "60%"}`.
    """

    seed: int = 0
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
    constraints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.search.objectives) < 1 or len(set(self.search.objectives)) < len(self.search.objectives):
            raise TrilobitError(
                f"search.objectives must name at least one objective, each once: {self.search.objectives}"
            )
        for name in self.search.objectives:
            objective(name)
        self.limits()
        self.profile.budget_s()
        self.quantized.phase()
        if not 0 < self.profile.share <= 1:
            raise TrilobitError(f"profile.share must be above 0 and at most 1, got {self.profile.share}")
        if self.seed < 0:
            raise TrilobitError(f"seed must be at least 0, got {self.seed}")
        if self.export.finetune < 0:
            raise TrilobitError(f"export.finetune must be at least 0 epochs, got {self.export.finetune}")
        if not self.export.finetune_learning_rate > 0:
            rate = self.export.finetune_learning_rate
            raise TrilobitError(f"export.finetune_learning_rate must be above 0, got {rate}")
        for section, name in _POSITIVE:
            value = getattr(getattr(self, section), name)
            if value is not None and value < 1:
                raise TrilobitError(f"{section}.{name} must be at least 1, got {value}")

    def limits(self) -> dict[str, Limit]:
        """The parsed constraints by objective name."""
        return {name: parse_limit(str(text), objective(name)) for name, text in self.constraints.items()}

    def section(self, name: str) -> Any:
        """One section as plain data, for fingerprints."""
        value = getattr(self, name)
        return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def parse_time(text: str) -> float:
    """Seconds of a time as people write it.

    >>> parse_time("2m"), parse_time("90s"), parse_time("1.5 h")
    (120.0, 90.0, 5400.0)

    Raises:
        TrilobitError: not a number with one of the units s, m, h, or not above 0.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smh])\s*", text)
    if match is None or float(match[1]) <= 0:
        raise TrilobitError(f"not a time: {text!r}; write for example 30s, 2m or 1h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


_POSITIVE = [
    ("device", "threads"),
    ("device", "batch"),
    ("measure", "rounds"),
    ("search", "rounds"),
    ("search", "budget"),
    ("search", "batch"),
    ("search", "finalists"),
    ("export", "count"),
    ("sample", "fp32"),
    ("storage", "grace_s"),
]


def parse_config(document: Mapping[str, Any], *, origin: str) -> RunConfig:
    """A configuration from plain data, as TOML gives it.

    Raises:
        TrilobitError: an unknown section or key, a value of the wrong type, or one that is not allowed.
    """
    known = {f.name: f for f in fields(RunConfig)}
    config = RunConfig()
    for name, value in document.items():
        if name not in known:
            raise TrilobitError(f"{origin}: unknown section {name!r}; known: {', '.join(known)}")
        config = replace(config, **{name: _parse_section(getattr(config, name), name, value, origin)})
    return config


def _parse_section(default: Any, name: str, value: Any, origin: str) -> Any:
    if not hasattr(default, "__dataclass_fields__"):
        if not isinstance(value, type(default)):
            raise TrilobitError(f"{origin}: {name} must be {type(default).__name__}, got {value!r}")
        return value
    if not isinstance(value, Mapping):
        raise TrilobitError(f"{origin}: [{name}] must be a table, got {value!r}")
    known = {f.name for f in fields(default)}
    for key, found in value.items():
        if key not in known:
            raise TrilobitError(f"{origin}: unknown key {name}.{key}; known: {', '.join(sorted(known))}")
        _check_type(getattr(default, key), found, f"{origin}: {name}.{key}")
    plain = {key: tuple(found) if isinstance(found, list) else found for key, found in value.items()}
    return replace(default, **plain)


def _check_type(default: Any, found: Any, where: str) -> None:
    if default is None:  # optional, an integer in all cases so far
        expected: tuple[type, ...] = (int,)
    elif isinstance(default, bool):
        expected = (bool,)
    elif isinstance(default, float):
        expected = (float, int)
    elif isinstance(default, tuple):
        expected = (list, tuple)
    else:
        expected = (type(default),)
    if not isinstance(found, expected) or (isinstance(found, bool) and bool not in expected):
        raise TrilobitError(f"{where} must be {' or '.join(t.__name__ for t in expected)}, got {found!r}")


def read_config(path: Path) -> RunConfig:
    """The configuration in a TOML file; what it does not name has its default.

    Raises:
        TrilobitError: no such file, not TOML, or not a configuration.
    """
    return parse_config(read_document(path), origin=str(path))


def read_document(path: Path) -> dict[str, Any]:
    """A TOML file as plain data.

    Raises:
        TrilobitError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise TrilobitError(f"{path}: no such configuration file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrilobitError(f"{path}: not valid TOML ({error})") from None


def render_config(config: RunConfig) -> str:
    """The resolved configuration as TOML; `read_config` gives it back, but for a password of the storage.

    Raises:
        TrilobitError: the storage is not a URL.
    """
    document = {f.name: config.section(f.name) for f in fields(RunConfig)}
    if config.storage.url:
        from nas.storage import hidden  # a database engine: only where one is named

        document["storage"]["url"] = hidden(config.storage.url)
    return tomli_w.dumps({key: _without_none(value) for key, value in document.items()})


def _without_none(value: Any) -> Any:
    """TOML has no null: what is absent takes its default."""
    if isinstance(value, Mapping):
        return {key: _without_none(found) for key, found in value.items() if found is not None}
    return list(value) if isinstance(value, tuple) else value
