"""What a board says of itself: its processor, how fast that runs, how hot it is."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from typing import Any

CPU_ZONES = ("cpu", "soc", "x86_pkg", "core", "cluster", "big", "little", "acpitz", "tsens", "bcm")
HOT_C = 85.0  # where the board does not say at what temperature it slows down
COOL_BY_C = 5.0  # so far below that the next windows are made
SLOWED = 0.9  # of its highest frequency: a core that was working runs below that only when it is held back
FIXED = ("performance",)  # governors that run at the highest frequency unless something holds them back
LOWEST_C, HIGHEST_C = -40.0, 200.0  # what a sensor can mean


class Board:
    """The files below `root` that Linux describes itself in; none of them need be there."""

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def facts(self) -> dict[str, Any]:
        """Return what stays the same."""
        core = self.best_core()
        return {
            "system": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
            "cpu": self.cpu(),
            "cores": len(self._cores()),
            "python": platform.python_version(),
            "executable": sys.executable,
            "governor": self.governor(core),
            "max_frequency_hz": self.frequency_hz(core, "cpuinfo_max_freq"),
            "memory_bytes": self._memory_bytes(),
            "flags": sorted(self._flags()),
        }

    def cpu(self) -> str:
        """Return the processor's name."""
        for key in ("model name", "Hardware", "Model"):
            for name, value in self._cpuinfo():
                if name == key and value:
                    return value
        model = self._text("proc/device-tree/model").rstrip("\0")
        return model or platform.processor() or platform.machine()

    def best_core(self) -> int:
        """Return the fastest core that this process may use, the last of several alike."""
        return max(self._cores(), key=lambda core: (self.frequency_hz(core, "cpuinfo_max_freq") or 0, core))

    def governor(self, core: int) -> str | None:
        """Return what decides how fast a core runs; None where nothing says so."""
        return self._text(self._frequency_file(core, "scaling_governor")) or None

    def frequency_hz(self, core: int, which: str = "scaling_cur_freq") -> int | None:
        """Return how fast a core runs, or can; None where nothing says so."""
        khz = self._number(self._frequency_file(core, which))
        return None if khz is None else int(1000 * khz)

    def temperature_c(self) -> float | None:
        """Return the temperature of the hottest part of the processor; None where there is no sensor."""
        return max((celsius for celsius, _ in self._zones()), default=None)

    def limit_c(self) -> float:
        """Return the temperature at which the processor is slowed down, as far as is known."""
        return min((limit for _, limit in self._zones() if limit is not None), default=HOT_C)

    def held_back(self, core: int) -> bool:
        """Return whether heat slows the core down now: it is as hot as it may become, or runs below its
        highest frequency although nothing else than heat would make it.
        """
        celsius = self.temperature_c()
        if celsius is not None and celsius >= self.limit_c():
            return True
        now, highest = self.frequency_hz(core), self.frequency_hz(core, "scaling_max_freq")
        fixed = self.governor(core) in FIXED
        return bool(fixed and now and highest and now < SLOWED * highest)

    def cooled(self, core: int) -> bool:
        """Return whether it has been cool for long enough to go on."""
        celsius = self.temperature_c()
        return not self.held_back(core) and (celsius is None or celsius < self.limit_c() - COOL_BY_C)

    def _cores(self) -> Sequence[int]:
        if hasattr(os, "sched_getaffinity"):
            return sorted(os.sched_getaffinity(0))
        return range(os.cpu_count() or 1)

    def _frequency_file(self, core: int, name: str) -> str:
        return "sys/devices/system/cpu/cpu%d/cpufreq/%s" % (core, name)

    def _zones(self) -> Iterator[tuple[float, float | None]]:
        """Yield (temperature, where it slows down or None) of what looks like a processor; of all sensors
        where none does.
        """
        folder = os.path.join(self._root, "sys/class/thermal")
        names = [name for name in _listed(folder) if name.startswith("thermal_zone")]
        types = {name: self._text(f"sys/class/thermal/{name}/type").lower() for name in names}
        likely = [name for name in names if any(word in types[name] for word in CPU_ZONES)]
        for name in likely or names:
            celsius = self._number(f"sys/class/thermal/{name}/temp")
            if celsius is not None and LOWEST_C < celsius / 1000 < HIGHEST_C:
                yield celsius / 1000, self._trip_c(name)

    def _trip_c(self, zone: str) -> float | None:
        folder = f"sys/class/thermal/{zone}"
        limits = []
        for name in _listed(os.path.join(self._root, folder)):
            named = name.startswith("trip_point_") and name.endswith("_type")
            if named and self._text(f"{folder}/{name}") in ("passive", "hot"):
                celsius = self._number(f"{folder}/{name[: -len('_type')]}_temp")
                if celsius is not None and 0 < celsius / 1000 < HIGHEST_C:
                    limits.append(celsius / 1000)
        return min(limits, default=None)

    def _memory_bytes(self) -> int | None:
        for line in self._text("proc/meminfo").splitlines():
            name, _, value = line.partition(":")
            if name == "MemTotal":
                return int(value.split()[0]) * 1024
        return None

    def _flags(self) -> set[str]:
        return {
            word for name, value in self._cpuinfo() if name in ("flags", "Features") for word in value.split()
        }

    def _cpuinfo(self) -> Iterator[tuple[str, str]]:
        for line in self._text("proc/cpuinfo").splitlines():
            name, _, value = line.partition(":")
            yield name.strip(), value.strip()

    def _text(self, path: str) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            with open(os.path.join(self._root, path), encoding="utf-8") as file:
                return file.read().strip()
        return ""

    def _number(self, path: str) -> float | None:
        text = self._text(path)
        try:
            return float(text) if text else None
        except ValueError:
            return None


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
