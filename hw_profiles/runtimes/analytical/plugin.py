"""Devices that execute nothing: profiles, published tables and models of accelerators."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hw_profiles.options import Range, check
from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import SECTION, DeviceKind


@dataclass(frozen=True)
class RecordedOptions:
    """Which profile is replayed.

    Attributes:
        profile: its file.
    """

    profile: str

    def __post_init__(self) -> None:
        check(self, SECTION)


@dataclass(frozen=True)
class TableOptions:
    """Which published table answers.

    Attributes:
        path: the published file.
        resolution: take the figures of this input resolution only, where the table has several; None takes
            all.
    """

    path: str
    resolution: Annotated[int | None, Range(1, 100_000)] = None

    def __post_init__(self) -> None:
        check(self, SECTION)


@dataclass(frozen=True)
class SystolicOptions:
    """Which accelerator is modelled.

    Attributes:
        accelerator: one that comes with Trilobit, or a TOML file of the same form.
    """

    accelerator: str

    def __post_init__(self) -> None:
        check(self, SECTION)


def _recorded(options: RecordedOptions) -> Device:
    from hw_profiles.runtimes.analytical.recorded import RecordedDevice

    return RecordedDevice(profile=Path(options.profile))


def _table(options: TableOptions) -> Device:
    from hw_profiles.runtimes.analytical.table import TableDevice

    return TableDevice(path=Path(options.path), resolution=options.resolution)


def _systolic(options: SystolicOptions) -> Device:
    from hw_profiles.runtimes.analytical.systolic import SystolicDevice

    return SystolicDevice(accelerator=options.accelerator)


RECORDED = DeviceKind(
    summary="replays a saved profile",
    open=_recorded,
    options=RecordedOptions,
    argument="profile",
    metavar="PROFILE.json",
)
TABLE = DeviceKind(
    summary="published measurements: OFA and ProxylessNAS phones, BitFusion",
    open=_table,
    options=TableOptions,
    argument="path",
    metavar="FILE",
)
SYSTOLIC = DeviceKind(
    summary="a model of an accelerator with 2- to 8-bit layers",
    open=_systolic,
    options=SystolicOptions,
    argument="accelerator",
    metavar="bitfusion or PARAMETERS.toml",
)
