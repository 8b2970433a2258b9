"""From the text that names a device, such as `ort:threads=4` or `recorded:FILE`, to the device.

A runtime, a model or a table joins as a `DeviceKind`: in the registry `hw_profiles.registry.DEVICES`, or from
another distribution as an entry point of the group `trilobit.devices`. What can be chosen of it is said once,
by the frozen dataclass of its options.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from typing import Any

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from hw_profiles.options import Option, options
from hw_profiles.registry import DEVICES, load, names
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.runtime import ArtifactKind, Runtime

HOST = "ort"  # what runs ONNX files on this machine where the device executes none
SECTION = "device"  # where options stand in a configuration
_CHOSEN = re.compile(r"\s*([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)


@dataclass(frozen=True)
class NoOptions:
    """Of a kind of device that has none."""


@dataclass(frozen=True)
class Recipe:
    """A way of quantizing somebody's network that an engine's own tools have.

    Attributes:
        name: short, and as a file may be called.
        title: as people call it.
        task: `module:function` that runs in a process of its own: it gets `path` of an ONNX file, `names` of
            its inputs and a `folder` that recipes share, and (n, ...) examples of each input as the arrays
            `input_0` and so on; it gives `notes` of what had to be done, and the new file as the array
            `model`.
    """

    name: str
    title: str
    task: str


@dataclass(frozen=True)
class DeviceKind:
    """What the word before the colon of a device's name stands for. Making one imports no engine.

    Attributes:
        summary: what it is, in a few words.
        open: from options to the device; imports the engine.
        options: a frozen dataclass of what can be chosen, with ranges (`hw_profiles.options`); one without a
            default must be.
        argument: the option that may be written bare after the colon, as in `recorded:FILE`; empty for none.
        metavar: how that is shown to people.
        artifact: what its runtime compiles; None where nothing is executed.
        engines: modules that only it imports, and the packages that bring them: what to install, and whose
            versions a run keeps.
        engine: as its devices call themselves (`DeviceInfo.engine`).
        title: as people call it, such as `ONNX Runtime`; its registered name where there is none.
        recipes: of its engine's own tools, which tuned networks are compared with.
        described: from what such a device says of itself to its options; by their names where None.
        elsewhere: `module:attribute` of what of it stays here when it runs on a board, made of its options;
            empty where it cannot be on one.
        on_boards: `module:function` that opens it on boards, from the options of both and the boards, where
            `elsewhere` is not all that there is to it.
        of: where it is a way of reaching boards: the kind that a runtime on them is, by what stands after
            the colon.
        machine: that it is on, such as `ssh:pi@10.0.0.5`; empty for this one.
    """

    summary: str
    open: Callable[[Any], Device]
    options: type = NoOptions
    argument: str = ""
    metavar: str = ""
    artifact: ArtifactKind | None = None
    engines: Mapping[str, str] = field(default_factory=dict)
    engine: str = ""
    title: str = ""
    recipes: tuple[Recipe, ...] = ()
    described: Callable[[DeviceInfo], Mapping[str, Any]] | None = None
    elsewhere: str = ""
    on_boards: str = ""
    of: "Callable[[str], DeviceKind] | None" = None
    machine: str = ""

    def options_of(self, info: DeviceInfo) -> Any:
        """Return the options of a device of this kind that describes itself so."""
        named = {key: getattr(info, key) for key in self.table if hasattr(info, key)}
        return self.options(**(self.described(info) if self.described is not None else named))

    @property
    def table(self) -> dict[str, Option]:
        """Its options by name."""
        return {option.key: option for option in options(self.options, SECTION)}

    @property
    def required(self) -> frozenset[str]:
        """The options that must be given."""
        listed = fields(self.options)
        return frozenset(f.name for f in listed if f.default is MISSING and f.default_factory is MISSING)


@dataclass(frozen=True)
class DeviceChoice:
    """A device that was named, with all its options.

    Attributes:
        name: of the kind.
        options: an instance of the kind's options.
    """

    name: str
    options: Any

    @property
    def kind(self) -> DeviceKind:
        """What it is."""
        return device_kind(self.name)

    @property
    def settings(self) -> dict[str, Any]:
        """Its options by name."""
        return asdict(self.options)

    def __str__(self) -> str:
        argument, kind = self.kind.argument, self.kind
        settings = {key: value for key, value in self.settings.items() if value != _default(kind, key)}
        first = [str(settings.pop(argument))] if argument in settings else []
        texts = [*first, *(f"{key}={_written(value)}" for key, value in settings.items())]
        return f"{self.name}:{','.join(texts)}" if texts else self.name

    def open(self) -> Device:
        """Return the device.

        Raises:
            TrilobitError: its engine is not installed, or refuses.
        """
        try:
            return self.kind.open(self.options)
        except ModuleNotFoundError as error:
            module = (error.name or "").partition(".")[0]
            if package := self.kind.engines.get(module):
                raise TrilobitError(f"{self.name}: {_missing(package)}") from None
            raise


def _missing(package: str) -> str:
    from hw_profiles.engines import requirement  # reads metadata: only where something is missing

    return f"the package {package} is not installed: pip install {requirement(package)!r}"


def device_kind(name: str) -> DeviceKind:
    """Return the kind of device that is registered as `name`; of a runtime on boards `WAY:ADDRESS/RUNTIME`.

    Raises:
        TrilobitError: there is none.
    """
    name, _, address = name.partition(":")
    plugin = load("trilobit.devices", DEVICES, name)
    if not isinstance(plugin, DeviceKind):
        raise TrilobitError(
            f"device {name!r}: its plug-in gives a {type(plugin).__name__}, not a DeviceKind; "
            "ask whoever wrote it"
        )
    return plugin.of(address) if address and plugin.of is not None else plugin


@cache
def builtin_options() -> Mapping[str, Option]:
    """Return the options of all devices that come with Trilobit, by `device.KEY`; where two share one, it is
    the first's.
    """
    listed: dict[str, Option] = {}
    for name in DEVICES:
        for option in device_kind(name).table.values():
            listed.setdefault(option.name, option)
    return listed


def choose(text: str, more: Mapping[str, Any] | None = None) -> DeviceChoice:
    """Return what a device's name and further options stand for.

    Args:
        text: such as `ort`, `ort:threads=4`, `tvm:aarch64-linux-gnu:cortex-a76` or `table:FILE`.
        more: options as plain data, such as a TOML file holds; they go before those in the text.

    Raises:
        TrilobitError: an unknown device or option, or a value that is not allowed; says what is.
    """
    name, rest = _parted(text)
    kind = device_kind(name)
    options = {**dict(_read(name, kind, rest)), **(more or {})}
    if kind.of is not None and kind.argument in options:
        kind.table[kind.argument].check(options[kind.argument])
        return choose(f"{name}:{options.pop(kind.argument)}", options)
    for key in options:
        if key not in kind.table:
            raise TrilobitError(_unknown(name, kind, key, options[key]))
    if lacking := sorted(kind.required - options.keys()):
        example = kind.metavar if lacking == [kind.argument] else f"{lacking[0]}=..."
        raise TrilobitError(f"device {name!r} needs to know which one: write {name}:{example}")
    return DeviceChoice(name, kind.options(**options))


def _parted(text: str) -> tuple[str, str]:
    """Return what names the kind of device, and its options; a runtime on boards is named with them."""
    name, _, rest = text.partition(":")
    if not rest or device_kind(name).of is None:
        return name, rest
    address, slash, runtime = rest.partition("/")
    runtime, _, rest = runtime.partition(":")
    return f"{name}:{address}{slash}{runtime}", rest


def open_device(text: str, **more: Any) -> Device:
    """Return the device that `text` names, with further options.

    Raises:
        TrilobitError: see `choose`; or its engine is not installed, or refuses.
    """
    return choose(text, more).open()


def host_runtime() -> Runtime:
    """Return what runs ONNX files on this machine where the device executes none.

    Raises:
        TrilobitError: it is not installed.
    """
    runtime = open_device(HOST).runtime
    assert runtime is not None
    return runtime


def choice_of(info: DeviceInfo) -> DeviceChoice | None:
    """Return how to open the kind of device that a profile or a manifest describes; None where nothing here
    executes what it did.
    """
    for name in names("trilobit.devices", DEVICES):
        kind = device_kind(name)
        if kind.engine == info.engine and kind.artifact is not None:
            return DeviceChoice(name, kind.options_of(info))
    return None


def _read(name: str, kind: DeviceKind, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the options that are written after the colon: `key=value`, joined by commas, the kind's argument
    bare and first. An argument that must be there may hold anything, such as a path.
    """
    if not text:
        return
    parts = text.split(",")
    bare = kind.argument in kind.required or _CHOSEN.match(parts[0]) is None
    if bare and not kind.argument:
        raise TrilobitError(f"device {name!r}: {shown(parts[0])} is no option=value; {_offered(name, kind)}")
    if bare:
        words = [parts.pop(0)]
        while parts and ((m := _CHOSEN.match(parts[0])) is None or m[1] not in kind.table):
            words.append(parts.pop(0))
        yield kind.argument, kind.table[kind.argument].read(",".join(words))
    for part in parts:
        match = _CHOSEN.match(part)
        if match is None:
            raise TrilobitError(f"device {name!r}: {shown(part)} is no option=value; {_offered(name, kind)}")
        if match[1] not in kind.table:
            raise TrilobitError(_unknown(name, kind, match[1], match[2]))
        yield match[1], kind.table[match[1]].read(match[2].strip())


def _unknown(name: str, kind: DeviceKind, key: str, value: Any) -> str:
    others = [other for other in DEVICES if other != name and key in device_kind(other).table]
    hint = did_you_mean(key, kind.table)
    if others and not hint:
        listed = " and ".join(filter(None, (", ".join(others[:-1]), others[-1])))
        hint = f"; {listed} {'has' if len(others) == 1 else 'have'} it"
    return (
        f"device {name!r} has no option {shown(key)[1:-1]} (= {shown(value)}){hint}; {_offered(name, kind)}"
    )


def _offered(name: str, kind: DeviceKind) -> str:
    listed = [f"{key} ({option.allowed})" for key, option in kind.table.items()]
    return f"options of {name!r}: {', '.join(listed)}" if listed else f"{name!r} has none"


def _default(kind: DeviceKind, key: str) -> Any:
    return next(f.default for f in fields(kind.options) if f.name == key)


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
