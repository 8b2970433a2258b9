"""Joules from Linux's powercap counters (Intel and AMD RAPL), where the machine shows them.

A counter is of a whole processor package: cores, caches and, on most, the memory controller.
https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
UPDATES = 50  # counters move every ms or so: the ends of a measurement are then uncertain by 2 %
LOOKS, LOOK_S = 100, 1e-3  # how often, and how far apart, it is looked at whether counters move at all


@dataclass(frozen=True)
class Domain:
    """One package's counter.

    Attributes:
        name: for example `package-0`.
        path: of the file with its microjoules.
        range_uj: the counter's largest value; after it comes 0 again.
    """

    name: str
    path: Path
    range_uj: int


@dataclass(frozen=True)
class Powercap:
    """The counters of all packages of this machine."""

    domains: tuple[Domain, ...]

    @property
    def updates(self) -> int:
        """So many, a ms each."""
        return UPDATES

    @property
    def settling_s(self) -> float:
        """Counters know nothing of before."""
        return 0.0

    def read_uj(self) -> tuple[int, ...]:
        """Return what the counters say now.

        Raises:
            OSError: a counter can no longer be read.
        """
        return tuple(read_counter(domain.path) for domain in self.domains)

    def between_j(self, first: tuple[int, ...], last: tuple[int, ...]) -> float:
        """Return joules of all packages between two readings, at most one turn of a counter apart."""
        return 1e-6 * sum(
            now - then if now >= then else now - then + domain.range_uj
            for domain, then, now in zip(self.domains, first, last)  # noqa: B905  a board's Python is older
        )

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[], float]]:
        """Return what adds up the joules of all packages from now on."""
        last, total_j = self.read_uj(), 0.0

        def used_j() -> float:
            nonlocal last, total_j
            now = self.read_uj()
            last, total_j = now, total_j + self.between_j(last, now)
            return total_j

        yield used_j

    def describe(self) -> str:
        """Return what is counted, as a profile says it.

        >>> Powercap((Domain("package-0", Path("energy_uj"), 1),)).describe()
        'powercap: all that package-0 used while it ran'
        """
        return f"powercap: all that {' and '.join(domain.name for domain in self.domains)} used while it ran"


def read_counter(path: Path) -> int:
    """Return the number in a file of one number.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no number.
    """
    return int(path.read_text())


def find_powercap(root: Path = POWERCAP, *, looks: int = LOOKS) -> Powercap | str:
    """Return the counters of this machine, or in one line why there are none.

    Args:
        looks: at counters that stand still, as those that some virtual machines show; 0 does not look.
    """
    if not root.is_dir():
        return f"no {root}: this machine, or the virtual machine around it, shows no energy counters"
    try:
        domains = _package_domains(root)
        for domain in domains:
            read_counter(domain.path)
    except PermissionError as error:
        return (
            f"{error.filename} cannot be read: run as root, or let everybody read it until the next start "
            f"with `sudo chmod a+r {root}/*/energy_uj`"
        )
    except (OSError, ValueError) as error:
        return f"the energy counters below {root} cannot be read: {error}"
    if not domains:
        return f"{root} has no counter of a whole processor package"
    meter = Powercap(domains)
    return meter if not looks or _moves(meter, looks) else f"the counters below {root} stand still"


def _moves(meter: Powercap, looks: int) -> bool:
    reading = meter.read_uj()
    for _ in range(looks):
        time.sleep(LOOK_S)
        if meter.read_uj() != reading:
            return True
    return False


def _package_domains(root: Path) -> tuple[Domain, ...]:
    """Return every package once, by name: `intel-rapl-mmio` shows what `intel-rapl` shows a second time."""
    domains: dict[str, Domain] = {}
    for folder in sorted(root.iterdir(), key=lambda folder: ("mmio" in folder.name, folder.name)):
        label = folder / "name"
        if not label.is_file() or not (folder / "energy_uj").exists():
            continue
        name = label.read_text().strip()
        if name.startswith("package") and name not in domains:
            range_uj = read_counter(folder / "max_energy_range_uj")
            domains[name] = Domain(name, folder / "energy_uj", range_uj)
    return tuple(domains.values())
