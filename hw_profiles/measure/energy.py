"""Joules from Linux's powercap counters (Intel and AMD RAPL), where the machine shows them.

A counter is of a whole processor package: cores, caches and, on most, the memory controller. What it counts
while a network runs is therefore the energy of everything that uses the package then, the idle system among
it, and says something of the network only on a machine that does nothing else.
https://docs.kernel.org/power/powercap/powercap.html
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hw_profiles.errors import TrilobitError
from hw_profiles.measure.interleave import Timed

POWERCAP = Path("/sys/class/powercap")
UPDATES = 50  # counters move every ms or so: the ends of a measurement are then uncertain by 2 %
BATCH_S = 1e-3  # between two looks at the counters
STUCK_S = 2.0  # a counter that has not moved for so long never will
LOOKS, LOOK_S = 100, 1e-3  # how often, and how far apart, it is looked at whether counters move at all

Reading = tuple[int, ...]  # microjoules, one per domain


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
class Meter:
    """The counters of all packages of this machine."""

    domains: tuple[Domain, ...]

    def read_uj(self) -> Reading:
        """Return what the counters say now.

        Raises:
            OSError: a counter can no longer be read.
        """
        return tuple(read_counter(domain.path) for domain in self.domains)

    def between_j(self, first: Reading, last: Reading) -> float:
        """Return joules of all packages between two readings, at most one turn of a counter apart."""
        return 1e-6 * sum(
            now - then if now >= then else now - then + domain.range_uj
            for domain, then, now in zip(self.domains, first, last, strict=True)
        )

    def describe(self) -> str:
        """Return what is counted, as a profile says it.

        >>> Meter((Domain("package-0", Path("energy_uj"), 1),)).describe()
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


def find_meter(root: Path = POWERCAP, *, looks: int = LOOKS) -> Meter | str:
    """Return the meter of this machine, or in one line why there is none.

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
    meter = Meter(domains)
    return meter if not looks or _moves(meter, looks) else f"the counters below {root} stand still"


def _moves(meter: Meter, looks: int) -> bool:
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


def measure_energy(run: Timed, meter: Meter, *, seconds: float) -> float:
    """Measure joules per run of all that the packages used while it ran again and again.

    Goes on for at least `seconds`, and until the counters have moved `UPDATES` times.

    Args:
        run: what is measured; the time that it gives is not used.
        meter: from `find_meter`.
        seconds: elapsed time, at least.

    Raises:
        TrilobitError: the counters do not move.
    """
    count = _runs_per_batch(run)
    last, _ = _until_moved(run, meter, meter.read_uj(), count)  # begin where a counter has just moved
    start, updates, runs, joules = time.perf_counter(), 0, 0, 0.0
    while updates < UPDATES or time.perf_counter() - start < seconds:
        reading, done = _until_moved(run, meter, last, count)
        joules += meter.between_j(last, reading)
        last, updates, runs = reading, updates + 1, runs + done
    return joules / runs


def _until_moved(run: Timed, meter: Meter, reading: Reading, count: int) -> tuple[Reading, int]:
    """Run in batches until a counter says something new: what it says, and how many runs that took."""
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < STUCK_S or not done:
        run(count)
        done += count
        now = meter.read_uj()
        if now != reading:
            return now, done
    raise TrilobitError(
        f"the energy counter {meter.domains[0].path} says {reading[0]} uJ and has not moved for "
        f"{STUCK_S:g} s; write energy_s = 0 below [measure] to measure without energy"
    )


def _runs_per_batch(run: Timed) -> int:
    """Return how many runs take about `BATCH_S`."""
    run(1)  # the first run allocates and chooses kernels
    start = time.perf_counter()
    run(3)
    return max(1, round(3 * BATCH_S / max(time.perf_counter() - start, 1e-9)))


def joules_of(runs: Sequence[Timed], meter: Meter | str, *, seconds: float) -> list[float | None]:
    """Return joules per run of each; None each where there is no meter, or no time for it."""
    if not isinstance(meter, Meter) or seconds <= 0:
        return [None] * len(runs)
    return [measure_energy(run, meter, seconds=seconds) for run in runs]
