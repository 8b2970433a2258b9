"""Working on the folder of a tune: it is held, its configuration is resolved and written, and what that names
is opened.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hw_profiles.engines import version_of
from hw_profiles.errors import TrilobitError, did_you_mean
from hw_profiles.files import remove_abandoned, write_atomic, write_json
from hw_profiles.redaction import redacted
from nas.emit.rewrite_onnx import rewrite
from nas.run.cluster import Cluster
from nas.run.config_file import parse_as, read_document, render_config, with_options
from nas.run.configuration import RECORD
from nas.run.environment import commit
from nas.run.reporting import QUIET, Reporter
from nas.run.session import cluster_of, held
from nas.run.tune_config import TuneConfig
from nas.tune.estimates import measure_costs, sized
from nas.tune.evaluation.context import TuneContext
from nas.tune.evaluation.on_worker import found_by
from nas.tune.evaluation.quality import Find
from nas.tune.policies.costs import COSTS
from nas.tune.search.limits import resolve_limits
from nas.tune.setup.stored import stored_quantization
from nas.tune.setup.tuning import Tuning
from supernet.imported.fixed_value import fixed_text
from supernet.ptq.quantization import Policy

DECIDED = ("choosing", "judging", "evaluations", "finalists")  # by what the machine takes, where left open
DECIDING = ("model.source", "samples.source", "tune.budget", "tune.formats")  # it depends on these
PACKAGES = ("trilobit", "numpy", "onnx", "onnxruntime", "onnx-ir", "onnxscript", "scipy", "optuna")


class NoDataError(TrilobitError):
    """Nothing says what examples of the model's input are."""


@contextmanager
def tune_session(
    folder: Path,
    options: Mapping[str, Any],
    *,
    file: Path | None = None,
    reset: bool = False,
    line: str = "",
    reporter: Reporter = QUIET,
) -> Iterator[TuneContext]:
    """Lock the folder of a tune and yield what its parts share.

    Args:
        options: by name, `section.key`; they win over the file and what the folder says.
        file: TOML with the sections of `run.toml`.
        reset: start from the defaults, not from what the folder's `run.toml` says.
        line: what people wrote; it is kept in `env.json`.

    Raises:
        TrilobitError: something is not allowed, does not exist, or another process writes to the folder.
    """
    with held(folder):
        config = resolve(options, folder, file=file, reset=reset)
        reporter.say(f"nas tune: {folder}")
        with cluster_of(config.cluster, reporter) as cluster:
            tuning = Tuning(folder, config)
            _open(tuning)
            tuning = tuning.with_config(_decided_here(tuning))
            context = TuneContext(tuning, _found_elsewhere(tuning, cluster, reporter))
            costs = dict.fromkeys(COSTS, 1.0)  # of the original: they are measured later
            resolve_limits(config.constraints, context.fidelity.metrics, costs)
            _check_metrics(context)
            remove_abandoned(folder)
            write_atomic(folder / RECORD, render_config(tuning.config))
            write_json(folder / "env.json", _environment(tuning, line))
            yield context


def _found_elsewhere(tuning: Tuning, cluster: Cluster | None, reporter: Reporter) -> Find | None:
    """Return how a cluster evaluates policies, once it is seen that it can; None where this process does."""
    if cluster is None:
        return None
    if board := tuning.config.device.choice.kind.machine:
        reporter.say(
            f"  cluster {cluster.address} has nothing to do: policies answer on {board}, and this process "
            "alone speaks to it"
        )
        return None
    if not (tuning.is_done("sample") and tuning.is_done("search")):
        cluster.require_workers()
        cluster.introduce()
    return found_by(cluster, tuning)


def _check_metrics(context: TuneContext) -> None:
    """Refuse an objective that is neither a cost nor what answers are judged by.

    Raises:
        TrilobitError: there is one; says what quality is.
    """
    main = context.fidelity.metrics[0].name
    for name in context.tuning.config.tune.objectives:
        if name not in (*COSTS, main):
            raise TrilobitError(
                f"--objective {name}: this model's answers are judged by {main}, which is traded off against "
                f"costs, of {', '.join(COSTS)}; limit other metrics (--min-quality {name}=...)"
            )


def _decided_here(tuning: Tuning) -> TuneConfig:
    """Return the configuration with what was left open decided: fixed inputs, and how much is done."""
    config = tuning.config
    fix = config.model.fix or tuple(fixed_text(*each) for each in tuning.fixed.items())
    tune = sized(tuning, measure_costs(tuning))
    return replace(config, model=replace(config.model, fix=fix), tune=tune)


def resolve(
    options: Mapping[str, Any], folder: Path, *, file: Path | None = None, reset: bool = False
) -> TuneConfig:
    """Return the configuration of a file, else that of the folder, else the defaults; options on top.

    Raises:
        TrilobitError: something is not allowed, or the folder is of another kind of run.
    """
    recorded = _recorded(folder)
    given = _whole_paths(options)
    path = file if file is not None else folder / RECORD if recorded and not reset else None
    document = read_document(path) if path is not None else {}
    parse_as(TuneConfig, document, origin=str(path or ""))
    stated = document if file is not None else _without(document, DECIDED)
    config = parse_as(TuneConfig, with_options(stated, given), origin="")
    decided = _decided(config, recorded, {*given, *(f"tune.{key}" for key in stated.get("tune", {}))})
    config = replace(config, tune=replace(config.tune, **decided))
    if not config.model.source:
        raise TrilobitError("which model? write `nas tune MODEL.onnx --data SOURCE`")
    if not config.samples.source:
        raise NoDataError(
            "no data: give examples of what the model reads, --data SOURCE: a folder or an archive of "
            "images, an .npy or .npz with an array for each input, or module:function"
        )
    return config


def _recorded(folder: Path) -> dict[str, Any]:
    """Return what the folder says of its tune; nothing where there is none.

    Raises:
        TrilobitError: it holds another kind of run.
    """
    record = folder / RECORD
    document = read_document(record) if record.is_file() else {}
    if document and "model" not in document:
        raise TrilobitError(
            f"{folder} holds a run of `nas run`; write to another folder with -o, or remove it"
        )
    return document


def _without(document: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    kept = {key: value for key, value in document.get("tune", {}).items() if key not in keys}
    return {**document, "tune": kept}


def _decided(config: TuneConfig, recorded: Mapping[str, Any], stated: Collection[str]) -> dict[str, Any]:
    """Return what was decided for this folder by how long things took: it stays, so that the same command
    goes on, until something changes that it depends on.
    """
    for name in DECIDING:
        section, _, key = name.partition(".")
        if _recorded_value(recorded, name) != getattr(getattr(config, section), key):
            return {}
    tune = recorded.get("tune", {})
    return {key: tune[key] for key in DECIDED if key in tune and f"tune.{key}" not in stated}


def _recorded_value(document: Mapping[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    value = document.get(section, {})
    value = value.get(key) if key and isinstance(value, Mapping) else value
    return tuple(value) if isinstance(value, list) else value


def _whole_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with paths as they are from anywhere."""
    whole = dict(options)
    for name in ("model.source", "samples.source", "samples.labels"):
        value = str(whole.get(name) or "")
        if value and (Path(value).exists() or name == "model.source"):
            whole[name] = str(Path(value).resolve())
    return whole


def _open(tuning: Tuning) -> None:
    """Load what the configuration names, so that what is refused is refused before anything is written."""
    source = Path(tuning.config.model.source)
    if not source.exists() and not tuning.original_path.is_file():
        near = did_you_mean(source.name, [path.name for path in source.parent.glob("*")])
        raise TrilobitError(f"{source}: no such file{near}")
    tuning.device.describe()
    _ = tuning.space


def _environment(tuning: Tuning, line: str) -> dict[str, Any]:
    import platform

    packages = dict.fromkeys((*PACKAGES, *tuning.config.device.choice.kind.engines.values()))
    return {
        "schema": "env/1",
        "versions": {
            "python": platform.python_version(),
            **{name: version for name in packages if (version := version_of(name))},
        },
        "commit": commit(),
        "command": redacted(line),
        "seed": tuning.config.seed,
        "init": "",
        "integer_sums": str(tuning.device.describe().sums),
        "formats": sorted({name for names in tuning.formats.values() for name in names}),
        "host": {"system": platform.platform(), "machine": platform.machine()},
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def stored_file(folder: Path, policy: Policy) -> bytes:
    """Return the file of a policy as the folder's device runs it.

    Raises:
        TrilobitError: the folder lacks what that needs, or its device is not there.
    """
    config = resolve({}, folder)
    quantization = stored_quantization(folder, config.model.fixed)
    if config.device.choice.kind.artifact != "library":
        return rewrite(quantization, policy)
    return Tuning(folder, config).write(quantization, policy)
