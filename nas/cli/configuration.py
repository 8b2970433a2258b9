"""From a command line, a file and a run folder to one configuration, and what to tell people about it.

Nothing here needs an engine, so that whatever is wrong is said at once.
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from hw_profiles.redaction import redacted
from hw_profiles.runtimes.plugin import SECTION
from nas.cli.flags import LIMITS, OPTIONS
from nas.run.config import OF_ONE_ENGINE, RunConfig
from nas.run.config_file import parse_config, read_document
from nas.run.defaults import with_defaults
from nas.run.registry import STAGES
from supernet.registry import FILE
from supernet.train.config import NONE
from supernet.zoo import PREFIX, shipped

RECORD = "run.toml"
# these may begin a run; all others go on with one
BEGIN = ("run", "profile", "train")
# options that name a file, and what stands before and after its path
_FILES: Mapping[str, tuple[str, ...]] = {
    "data.source": ("imagefolder:",),
    "device.name": ("recorded:",),
    "export.sign": ("",),
    "fit.prior": ("",),
    "profile.sources": ("",),
    "train.init": ("",),
    "train.teacher": ("",),
    "space.name": ("",),
}


@dataclass(frozen=True)
class Configuration:
    """What a command is to do.

    Attributes:
        config: resolved.
        notes: what people should know of it, a line each.
    """

    config: RunConfig
    notes: tuple[str, ...]


def configure(arguments: argparse.Namespace) -> Configuration:
    """Return the configuration file, else the one in the run folder, else the defaults; the options on top.

    Raises:
        TrilobitError: something is not allowed, does not exist, or there is no run to go on with.
    """
    given = _given(arguments)
    record = arguments.output / RECORD
    kept = record.exists() and arguments.config is None and not arguments.reset
    path = record if kept else arguments.config
    document = read_document(path) if path is not None else {}
    before = parse_config(document, origin=str(path or ""))
    merged = _merged(document, given)
    parse_config(merged, origin="")
    _check_files(given if kept else {**_named(before), **given})
    _check_folder(arguments.command, arguments.output)
    filled, note = with_defaults(merged)
    config = parse_config(filled, origin="")
    kept_note = _kept_note(record, before, given) if kept else ""
    return Configuration(config, tuple(line for line in (kept_note, note, *_comments(config)) if line))


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of the command line by name, `section.key`."""
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if value is not None and ("." in name or name == "seed")
    }
    given |= {LIMITS + limited: limit for limited, limit in given.pop(LIMITS, ())}
    if "export.count" in given and "export.pick" not in given:  # a spread, whatever was picked before
        given["export.pick"] = ()
    if str(given.get("space.name", "")).endswith(FILE):
        given["space.name"] = str(Path(given["space.name"]).resolve())
    for name in ("fit.prior", "export.sign"):  # paths that stay in the folder's run.toml
        if given.get(name):
            given[name] = str(Path(given[name]).resolve())
    if rpc := getattr(arguments, "rpc", None):
        kind, tracker = rpc
        if kind != "tracker":
            raise TrilobitError(
                f"--rpc {shown(kind)}: only 'tracker' is known; write --rpc tracker HOST:PORT"
            )
        given = {"device.name": "tvm", **given, "device.tracker": tracker}
    return given


def _merged(document: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the options on top; what was for another engine is left out."""
    merged = {name: dict(value) if isinstance(value, Mapping) else value for name, value in document.items()}
    search = merged.get("search", {})
    if given.get("search.searcher", search.get("searcher")) != search.get("searcher"):
        merged["search"] = {key: value for key, value in search.items() if key not in OF_ONE_ENGINE}
    if "device.name" in given:  # with options of its own
        merged["device"] = {}
    for name, value in given.items():
        section, _, key = name.partition(".")
        if key:
            merged.setdefault(section, {})[key] = value
        else:
            merged[section] = value
    return merged


# -- what is named must exist -------------------------------------------------------------------------


def _named(config: RunConfig) -> dict[str, Any]:
    return {name: _value(config, name, "") for name in _FILES}


def _check_files(values: Mapping[str, Any]) -> None:
    """Refuse options that name a file which is not there.

    Raises:
        TrilobitError: names the option and the file.
    """
    for name in set(values) & set(_FILES):
        for value in values[name] if isinstance(values[name], tuple) else (values[name],):
            path = _path_in(name, value)
            if path is not None and not path.exists():
                raise TrilobitError(f"{path}: no such file or folder ({name}){_nearby(path)}")


def _path_in(name: str, value: str) -> Path | None:
    """Return the path that an option's value holds; None where it holds none."""
    if name == "train.init" and value.startswith(PREFIX):
        return shipped(value.removeprefix(PREFIX))
    if not value or (name == "train.init" and value == NONE):
        return None
    if name == "space.name":
        return Path(value) if value.endswith(FILE) else None
    for prefix in _FILES[name]:
        if value.startswith(prefix):
            path = value.removeprefix(prefix)
            return Path(path.partition("?")[0]) if path else None
    return None


def _nearby(path: Path) -> str:
    """Return a hint at a file of nearly that name."""
    try:
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        return ""


def _check_folder(command: str, folder: Path) -> None:
    """Refuse to go on with a run that is not there.

    Raises:
        TrilobitError: the folder holds no run.
    """
    if command in BEGIN or (folder / RECORD).exists():
        return
    before = ", ".join(f"`nas {stage}`" for stage in STAGES[: STAGES.index(command)])
    raise TrilobitError(
        f"{folder}: not a run folder (no {RECORD}){other_runs(folder)}; `nas {command}` comes after "
        f"{before}; `nas run -o {folder}` does all"
    )


def other_runs(folder: Path) -> str:
    """Return a hint at a run folder of nearly that name."""
    try:
        return did_you_mean(folder.name, [path.parent.name for path in folder.parent.glob(f"*/{RECORD}")])
    except (OSError, ValueError):
        return ""


# -- what people should know --------------------------------------------------------------------------


def _kept_note(record: Path, before: RunConfig, given: Mapping[str, Any]) -> str:
    """Return what the folder says that neither the defaults nor the command line do."""
    kept = [
        f"{name} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, option in OPTIONS.items()
        if name not in given
        and not (option.section == SECTION and "device.name" in given)
        and (value := _value(before, name, option.default)) != option.default
    ]
    kept += [
        f"{name} {limit}" for name, limit in before.constraints.items() if f"constraints.{name}" not in given
    ]
    return redacted(f"from {record}: {', '.join(kept)} (--reset starts from the defaults)") if kept else ""


def _value(config: RunConfig, name: str, default: Any) -> Any:
    section, _, key = name.rpartition(".")
    if section == SECTION and key in config.device.options:
        return config.device.options[key]
    return getattr(getattr(config, section, None) if section else config, key, default)


def _comments(config: RunConfig) -> Iterator[str]:
    """Yield what is allowed but hardly meant."""
    cores, threads = os.cpu_count() or 1, config.device.settings.get("threads", 1)
    if threads > cores:
        yield f"threads {threads}: this machine has {cores} cores; more threads than cores are slower"
    for name, limit in config.limits().items():
        if limit.relative and limit.value > 1:
            yield f"limit on {name} {config.constraints[name]}: the largest network needs less: no limit"
    if config.profile.sources and config.profile.share == 1 and not config.profile.budget:
        yield "--from: not used, since every unit is measured; --share or --budget leaves some to predict"
