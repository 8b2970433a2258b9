"""From options, a file and a run folder to one configuration, and what to tell people about it.

Nothing here needs an engine, so that whatever is wrong is said at once.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw_profiles.errors import TrilobitError, did_you_mean
from hw_profiles.redaction import redacted
from hw_profiles.runtimes.plugin import SECTION
from nas.run.config import OF_ONE_ENGINE, RunConfig, section_options
from nas.run.config_file import parse_config, read_document, with_options
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
    "data.source": ("imagefolder:", "text:", "csv:"),
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


def configure(
    options: Mapping[str, Any],
    folder: Path,
    *,
    stage: str = "run",
    file: Path | None = None,
    reset: bool = False,
) -> Configuration:
    """Return the configuration of a file, else that of the run folder, else the defaults; options on top.

    Args:
        options: by name, `section.key`; they win.
        folder: of the run.
        stage: what is to be done, `run` for all of it: only the first stages may begin a run.
        file: TOML with the sections of `run.toml`.
        reset: start from the defaults, not from what the folder's `run.toml` says.

    Raises:
        TrilobitError: something is not allowed, does not exist, or there is no run to go on with.
    """
    options = _lasting(options)
    record = folder / RECORD
    kept = record.exists() and file is None and not reset
    path = record if kept else file
    document = read_document(path) if path is not None else {}
    recorded = parse_config(document, origin=str(path or ""))
    merged = with_options(_of_its_searcher(document, options), options)
    parse_config(merged, origin="")
    _check_files(options if kept else {**_named(recorded), **options})
    _check_folder(stage, folder)
    filled, note = with_defaults(merged)
    config = parse_config(filled, origin="")
    kept_note = _kept_note(record, recorded, options) if kept else ""
    return Configuration(config, tuple(line for line in (kept_note, note, *_comments(config)) if line))


def _lasting(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as `run.toml` keeps them: paths whole, a new count without old picks."""
    lasting = dict(options)
    if "export.count" in lasting and "export.pick" not in lasting:  # a spread, whatever was picked before
        lasting["export.pick"] = ()
    if str(lasting.get("space.name", "")).endswith(FILE):
        lasting["space.name"] = str(Path(lasting["space.name"]).resolve())
    for name in ("fit.prior", "export.sign"):
        if lasting.get(name):
            lasting[name] = str(Path(lasting[name]).resolve())
    return lasting


def _of_its_searcher(document: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document without what was for another searcher than the options'."""
    search = document.get("search", {})
    if options.get("search.searcher", search.get("searcher")) == search.get("searcher"):
        return dict(document)
    return {**document, "search": {key: value for key, value in search.items() if key not in OF_ONE_ENGINE}}


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


def _check_folder(stage: str, folder: Path) -> None:
    """Refuse to go on with a run that is not there.

    Raises:
        TrilobitError: the folder holds no run.
    """
    if stage in BEGIN or (folder / RECORD).exists():
        return
    earlier_stages = ", ".join(f"`nas {earlier}`" for earlier in STAGES[: STAGES.index(stage)])
    raise TrilobitError(
        f"{folder}: not a run folder (no {RECORD}){other_runs(folder)}; `nas {stage}` comes after "
        f"{earlier_stages}; `nas run -o {folder}` does all"
    )


def other_runs(folder: Path) -> str:
    """Return a hint at a run folder of nearly that name."""
    try:
        return did_you_mean(folder.name, [path.parent.name for path in folder.parent.glob(f"*/{RECORD}")])
    except (OSError, ValueError):
        return ""


# -- what people should know --------------------------------------------------------------------------


def _kept_note(record: Path, recorded: RunConfig, options: Mapping[str, Any]) -> str:
    """Return what the folder says that neither the defaults nor the command line do."""
    kept = [
        f"{name} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, option in section_options().items()
        if name not in options
        and not (option.section == SECTION and "device.name" in options)
        and (value := _value(recorded, name, option.default)) != option.default
    ]
    kept += [
        f"{name} {limit}"
        for name, limit in recorded.constraints.items()
        if f"constraints.{name}" not in options
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
