"""Configurations as TOML: read with every error in one line, and written back resolved."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from nas.run.config import RunConfig, sections
from nas.run.tune_config import NO_LIMIT as NO_LIMIT
from nas.run.tune_config import TuneConfig
from nas.search.objectives import canonical_name

LARGEST_BYTES = 1_000_000  # of a configuration file
C = TypeVar("C", RunConfig, TuneConfig)


def parse_config(document: Mapping[str, Any], *, origin: str) -> RunConfig:
    """Return the configuration of a run from plain data, as TOML gives it; see `parse_as`."""
    return parse_as(RunConfig, document, origin=origin)


def parse_as(kind: type[C], document: Mapping[str, Any], *, origin: str) -> C:
    """Return a configuration from plain data, as TOML gives it.

    Args:
        kind: whose sections the document has.
        origin: what errors begin with, such as the file; empty for nothing.

    Raises:
        TrilobitError: an unknown section or key, a value of the wrong type, or one that is not allowed.
    """
    try:
        return _configured(kind, document)
    except TrilobitError as error:
        raise TrilobitError(f"{origin}: {error}" if origin else str(error)) from None


def _configured(kind: type[C], document: Mapping[str, Any]) -> C:
    section_names, defaults = [f.name for f in fields(kind)], sections(kind())
    values: dict[str, Any] = {}
    for name, value in document.items():
        if name not in section_names:
            hint = did_you_mean(name, section_names)
            raise TrilobitError(f"unknown section {shown(name)}{hint}; known: {', '.join(section_names)}")
        if name != "seed" and not isinstance(value, Mapping):
            raise TrilobitError(f"[{name}] must be a table, got {shown(value)}")
        values[name] = _parse_section(defaults[name], name, value) if name in defaults else value
    if limits := values.get("constraints"):
        values["constraints"] = {
            canonical_name(name): limit for name, limit in limits.items() if limit != NO_LIMIT
        }
    return kind(**values)


def _parse_section(default: Any, name: str, values: Mapping[str, Any]) -> Any:
    keys = [f.name for f in fields(default)]
    values = default.nested(values) if hasattr(default, "nested") else values
    values = {key: value for key, value in values.items() if key not in getattr(default, "RETIRED", ())}
    for key in values:
        if key not in keys:
            hint = did_you_mean(key, keys)
            raise TrilobitError(
                f"unknown key {name}.{shown(key)[1:-1]}{hint}; known: {', '.join(sorted(keys))}"
            )
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return replace(default, **plain)


def with_options(document: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with options on top, by name, `section.key`; a device comes with options of its own.

    >>> with_options({"device": {"name": "ort", "threads": 4}}, {"device.name": "tvm", "seed": 1})
    {'device': {'name': 'tvm'}, 'seed': 1}
    """
    merged = {name: dict(value) if isinstance(value, Mapping) else value for name, value in document.items()}
    if "device.name" in options:
        merged["device"] = {}
    for name, value in options.items():
        section, _, key = name.partition(".")
        if key:
            merged.setdefault(section, {})[key] = value
        else:
            merged[section] = value
    return merged


def read_config(path: Path) -> RunConfig:
    """Read the configuration in a TOML file; what it does not name has its default.

    Raises:
        TrilobitError: no such file, not TOML, or not a configuration.
    """
    return parse_config(read_document(path), origin=str(path))


def read_document(path: Path) -> dict[str, Any]:
    """Read a TOML file as plain data.

    Raises:
        TrilobitError: no such file, or not TOML.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise TrilobitError(f"{path}: larger than {LARGEST_BYTES:,} bytes: no configuration is")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrilobitError(f"{path}: no such configuration file") from None
    except IsADirectoryError:
        raise TrilobitError(f"{path}: a folder, not a configuration file; a run folder goes to -o") from None
    except RecursionError:
        raise TrilobitError(f"{path}: not valid TOML (nested too deeply)") from None
    except ValueError as error:  # not TOML, not UTF-8, or an integer of thousands of digits
        reason = " ".join(str(error).split(";")[0].split())
        raise TrilobitError(f"{path}: not valid TOML ({reason})") from None


def render_config(config: RunConfig | TuneConfig) -> str:
    """Return the resolved configuration as TOML, which `parse_as` reads, without the storage's password.

    Raises:
        TrilobitError: the storage is not a URL.
    """
    document = {f.name: config.section(f.name) for f in fields(config)}
    if isinstance(config, RunConfig) and config.storage.url:
        from nas.run.storage import hidden  # a database engine: only where one is named

        document["storage"]["url"] = hidden(config.storage.url)
    return tomli_w.dumps({key: _without_none(value) for key, value in document.items()})


def _without_none(value: Any) -> Any:
    """Return a section without None: TOML has no null, and what is absent takes its default."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return list(value) if isinstance(value, tuple) else value
