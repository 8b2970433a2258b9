"""What runs libraries of own kernels where a device is named: this machine, or a board. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.device import MeasuredDevice, TimesOnly
from hw_profiles.runtimes.info import BoardInfo
from hw_profiles.runtimes.plugin import DeviceChoice, choose


@dataclass(frozen=True)
class LibraryEngine:
    """A device of own kernels.

    Attributes:
        choice: its name and options.
        device: ready.
    """

    choice: DeviceChoice
    device: MeasuredDevice

    @property
    def board(self) -> BoardInfo | None:
        """Where libraries run; None for this machine."""
        return self.device.runtime.describe().board

    def request(self) -> dict[str, Any]:
        """Return it as plain data, for a process of its own."""
        return {"name": self.choice.name, "options": self.choice.settings}


def library_engine(text: str) -> LibraryEngine | None:
    """Return what a device's name stands for, which is reached here; None where it is empty, or a device that
    runs no libraries.

    Raises:
        TrilobitError: there is no such device, it is not there, or it only says how long libraries take.
    """
    if not text or (choice := choose(text)).kind.artifact != "library":
        return None
    device = choice.open()
    if not isinstance(device, MeasuredDevice) or isinstance(device.transport, TimesOnly):
        raise TrilobitError(
            f"device {text!r}: the boards of a tracker only say how long their own networks take; reach the "
            "board over ssh or adb, such as ssh:USER@HOST/tvm"
        )
    device.describe()  # what is wrong with it is said before anything is begun
    return LibraryEngine(choice, device)
