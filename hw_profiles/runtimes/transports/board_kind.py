"""Ways of reaching boards as kinds of devices: `ssh:pi@10.0.0.5/ort:threads=4` is a runtime with its own
options, on a board.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pkgutil import resolve_name
from typing import Annotated, Any

from hw_profiles.errors import TrilobitError, shown
from hw_profiles.options import Range, Written, check
from hw_profiles.registry import DEVICES
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import SECTION, DeviceKind, device_kind
from hw_profiles.runtimes.transports.board import Board
from hw_profiles.runtimes.transports.boards import Boards
from hw_profiles.runtimes.transports.launch import PYTHONS, Launch, PythonAgent

USUAL = "ort"
MB = 10**6


@dataclass(frozen=True)
class BoardOptions:
    """What can be chosen of a board with Python.

    Attributes:
        python: what runs the agent there; empty tries the usual places.
        folder: where files are kept there; empty takes the user's cache folder there.
        cache_mb: that they may take, in MB; 0 keeps nothing.
        hang_s: seconds without a word, after which a board is taken as hung.
    """

    python: str = ""
    folder: str = ""
    cache_mb: Annotated[int, Range(0, 1_000_000)] = 512
    hang_s: Annotated[float, Range(1, 86_400)] = 120.0

    def __post_init__(self) -> None:
        check(self, SECTION)


def launched(options: BoardOptions) -> Launch:
    """Return the agent in Python, with these options."""
    pythons = (options.python,) if options.python else PYTHONS
    return PythonAgent(pythons, options.folder, options.cache_mb * MB, options.hang_s)


@dataclass(frozen=True)
class Reached:
    """A way of reaching boards.

    Attributes:
        scheme: the word before the colon.
        board_of: the board that an address stands for.
        options: what can be chosen, besides what can be of the runtime; a frozen dataclass of defaults.
        launch: how an agent gets there, by those options.
    """

    scheme: str
    board_of: Callable[[str], Board]
    options: type = BoardOptions
    launch: Callable[[Any], Launch] = launched

    def kind(self, text: str) -> DeviceKind:
        """Return the kind of device that a runtime on boards is: `ADDRESS[,ADDRESS...][/RUNTIME]`.

        Raises:
            TrilobitError: no board is written like that, or the runtime cannot be on one.
        """
        addresses, _, name = text.partition("/")
        boards = tuple(dict.fromkeys(map(self.board_of, addresses.split(","))))
        runtime = _runtime(self.scheme, name or USUAL)
        machine = ", ".join(board.name for board in boards)

        def opened(options: Any) -> Device:
            from hw_profiles.measure.in_context import in_context
            from hw_profiles.runtimes.device import MeasuredDevice
            from hw_profiles.runtimes.transports.board_transport import BoardTransport

            if runtime.on_boards:
                opened_there: Device = resolve_name(runtime.on_boards)(options, boards)
                return opened_there
            engine = resolve_name(runtime.elsewhere)(options)
            reached = boards_of(boards, self.launch(options))
            reached.reconsider()
            return MeasuredDevice(engine.on(reached), BoardTransport(reached), in_context)

        both = _both(runtime.options, self.options)
        return replace(
            runtime,
            open=opened,
            options=both,
            title=f"{runtime.title or name} on {machine}",
            summary=f"boards over {self.scheme}",
            machine=machine,
        )


@cache
def boards_of(boards: tuple[Board, ...], launch: Launch) -> Boards:
    """Return the boards, the same on every call: connections to them stay open."""
    return Boards(boards, launch)


@cache
def _both(of_runtime: Any, of_board: Any) -> type:
    """Return a dataclass of the options of a runtime and of a board."""
    return dataclass(frozen=True)(
        type("BoardAndRuntime", (of_runtime, of_board), {"__doc__": "Both's options."})
    )


def _runtime(scheme: str, name: str) -> DeviceKind:
    """Return the kind of a runtime that can be on boards.

    Raises:
        TrilobitError: there is none of that name.
    """
    kinds = {each: device_kind(each) for each in DEVICES if each != scheme}
    able = [each for each, kind in kinds.items() if kind.elsewhere or kind.on_boards]
    if name not in able:
        raise TrilobitError(
            f"device {scheme!r}: {shown(name)} cannot run on a board; write {scheme}:ADDRESS/RUNTIME, where "
            f"RUNTIME is one of {', '.join(able)}"
        )
    return device_kind(name)


def scheme_kind(reached: Reached, *, summary: str, metavar: str) -> DeviceKind:
    """Return what is registered for a way of reaching boards: `device_kind` makes the kind of each runtime on
    them of it.
    """

    @dataclass(frozen=True, kw_only=True)
    class Named(reached.options):  # type: ignore[name-defined, misc]
        """Those of the boards, and which they are."""

        board: Annotated[str, Written(reached.kind, f"{reached.scheme}:{metavar}")]

    def opened(options: Any) -> Device:
        raise TrilobitError(f"device {reached.scheme!r} needs a board: write {reached.scheme}:{metavar}")

    return DeviceKind(
        summary=summary,
        open=opened,
        options=Named,
        argument="board",
        metavar=metavar,
        artifact="onnx",
        of=reached.kind,
    )
