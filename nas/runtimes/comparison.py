"""What files take on their runtimes, timed in the same turns, and which to use."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.documents import MismatchError
from hw_profiles.errors import TrilobitError
from hw_profiles.measure.host import instruction_set
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.plugin import choose
from nas.checks.confined import GIB, ConfinedError, Limits, confined
from nas.run.tuned_document import MeasuredLatency
from nas.runtimes.contestants import Contestant
from nas.serving.side_by_side import TASK, Timing, timings_of

WAITING_S = 20.0  # for quiet moments
LOAD_S, MEMORY = 60.0, 2 * GIB  # that opening a file may take
QUARTILES = 25, 50, 75


@dataclass(frozen=True)
class ComparedFile:
    """One file on one runtime.

    Attributes:
        device: as `--device` takes it.
        runtime: as people call it.
        network: whose file it is.
        formats: of its layers; `fp32` for all.
        file: its path.
        size_bytes: of it.
        latency: in the same turns as all others; `ratio` is its time over that of the first file. None where
            it does not run.
        difference: largest difference of its answers to the example from those of the first file (of a run:
            of the same network), as a share of the largest of these; None where they are not comparable.
        metric, quality: measured of its answers when it was found; empty and None where nothing was.
        error: why it does not run; empty where it does.
    """

    device: str
    runtime: str
    network: str
    formats: str
    file: str
    size_bytes: int
    latency: MeasuredLatency | None = None
    difference: float | None = None
    metric: str = ""
    quality: float | None = None
    error: str = ""


@dataclass(frozen=True)
class RuntimeSpeed:
    """How fast one runtime is over several files that all of them run.

    Attributes:
        device: as `--device` takes it.
        files: that all runtimes run.
        ratio: geometric mean over these of its time over that of the fastest runtime.
        fastest: of how many it is the fastest.
    """

    device: str
    files: int
    ratio: float
    fastest: int


@dataclass(frozen=True)
class RuntimeComparison:
    """Files on runtimes.

    Attributes:
        files: the first is what times are ratios to.
        fastest: places of the fastest one and of those that are as fast as far as measurements tell.
        instruction_set: of the processor.
        machine: that all of them run on, such as `ssh:pi@10.0.0.5`; empty for this one.
        runtimes: those of files that several run, the fastest first, without those that run less than half
            of these; empty where there is one such file.
    """

    files: tuple[ComparedFile, ...]
    fastest: tuple[int, ...]
    instruction_set: str
    runtimes: tuple[RuntimeSpeed, ...] = ()
    machine: str = ""

    @property
    def place(self) -> str:
        """The processor, and where it is."""
        return f"{self.machine}, {self.instruction_set}" if self.machine else self.instruction_set

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data, without samples."""
        plain = asdict(self)
        for row in plain["files"]:
            if row["latency"] is not None:
                row["latency"].pop("samples_s")
        return plain


def compare_files(
    contestants: Sequence[Contestant], *, inputs: Path | None = None, plan: MeasurePlan | None = None
) -> RuntimeComparison:
    """Time files in the same turns, in a process of its own.

    Args:
        contestants: the first must run.
        inputs: an .npz file with an array for each input; None takes random numbers.
        plan: how long; the clock is chosen where they run.

    Raises:
        TrilobitError: the first does not run, or leaves sizes open.
    """
    plan = plan or MeasurePlan(waiting_s=WAITING_S, energy_s=0.0)
    request = {
        "files": [dict(contestant.request) for contestant in contestants],
        "inputs": None if inputs is None else str(inputs.absolute()),
        "plan": plan.to_json(),
    }
    opened = plan.sessions * len(contestants)
    limits = Limits(plan.waiting_s + opened * LOAD_S, Limits.memory_bytes + opened * MEMORY)
    try:
        document, _ = confined(TASK, request, limits=limits)
        timings = timings_of(document)
    except (ConfinedError, MismatchError) as error:
        raise TrilobitError(f"{contestants[0].path}: {error}") from None
    return compared(contestants, timings)


def compared(contestants: Sequence[Contestant], timings: Sequence[Timing]) -> RuntimeComparison:
    """Return what was measured of files.

    Raises:
        TrilobitError: the first was not.
    """
    first = timings[0].measured
    if first.error is not None:
        raise TrilobitError(f"{contestants[0].path} on {contestants[0].device}: {first.error}")
    files = tuple(
        _compared(contestant, timing, first.array)
        for contestant, timing in zip(contestants, timings, strict=True)
    )
    where = _instructions(contestants[0]), _runtimes(files), contestants[0].machine
    return RuntimeComparison(files, _fastest(files), *where)


def _instructions(contestant: Contestant) -> str:
    """Return the best instruction set of the processor that a file is timed on."""
    device = contestant.request.get("device")
    if device is None:  # machine code, which runs here
        return instruction_set()
    return choose(device["name"], device["options"]).open().describe().instructions


def _compared(contestant: Contestant, timing: Timing, first_s: np.ndarray) -> ComparedFile:
    row = ComparedFile(
        contestant.device,
        contestant.title,
        contestant.network,
        contestant.formats,
        str(contestant.path),
        contestant.path.stat().st_size,
        difference=timing.difference,
        metric=contestant.metric,
        quality=contestant.quality,
    )
    measured = timing.measured
    if measured.error is not None:
        return replace(row, error=measured.error)
    low, middle, high = np.percentile(measured.array / first_s, QUARTILES)
    latency = MeasuredLatency(
        median_s=measured.median_s,
        iqr_s=measured.iqr_s,
        ratio=float(middle),
        ratio_iqr=float(high - low),
        samples_s=measured.samples_s,
        quiet_share=measured.quiet_share,
        load=measured.load,
    )
    return replace(row, latency=latency)


def _fastest(files: Sequence[ComparedFile]) -> tuple[int, ...]:
    """Return the places of those whose time nothing undercuts by more than measurements differ: the middle
    half of the ratios of two files to the first overlap.
    """
    timed = [(place, file.latency) for place, file in enumerate(files) if file.latency is not None]
    best_place, best = min(timed, key=lambda pair: pair[1].ratio)
    alike = [
        place
        for place, latency in timed
        if place != best_place and latency.ratio - best.ratio <= (latency.ratio_iqr + best.ratio_iqr) / 2
    ]
    return (best_place, *alike)


def _runtimes(files: Sequence[ComparedFile]) -> tuple[RuntimeSpeed, ...]:
    """Return how fast the runtimes are over the files that all of them run, the fastest first; none where
    there are fewer than two such files. Runtimes that run less than half of what another one does are left
    out.
    """
    ratios = dict[str, dict[str, float]]()
    for file in files:
        if file.latency is not None:
            ratios.setdefault(file.file, {})[file.device] = file.latency.ratio
    shared = [by_device for by_device in ratios.values() if len(by_device) > 1]
    counts = Counter(device for by_device in shared for device in by_device)
    devices = [device for device, count in counts.items() if 2 * count >= max(counts.values())]
    whole = [by_device for by_device in shared if by_device.keys() >= set(devices)]
    if len(whole) < 2 or len(devices) < 2:
        return ()
    times = np.array([[by_device[device] for device in devices] for by_device in whole])
    means = np.exp(np.log(times / times.min(axis=1, keepdims=True)).mean(axis=0))
    wins = np.bincount(times.argmin(axis=1), minlength=len(devices))
    rows = zip(devices, means.tolist(), wins.tolist(), strict=True)
    speeds = [RuntimeSpeed(device, len(whole), mean, won) for device, mean, won in rows]
    return tuple(sorted(speeds, key=lambda speed: speed.ratio))


def folder_names(devices: Sequence[str]) -> Mapping[str, str]:
    """Return a name for the folder of each device's tune, as files may be called."""
    return {device: "".join(c if c.isalnum() or c in "-." else "-" for c in device) for device in devices}
