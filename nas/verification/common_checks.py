"""What is looked at again of every ONNX file, whatever network is in it. The file is only ever loaded in a
process of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hw_profiles.documents import MismatchError, parse
from hw_profiles.measure.host import cpu_model
from hw_profiles.measure.measurement import MeasurePlan, plan_on
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.onnx_file import EXACT_SUMS
from hw_profiles.runtimes.runtime import CountsMemory, own_path
from nas.checks.confined import ConfinedError, Limits, confined
from nas.checks.engine import FileEngine
from nas.checks.file_tasks import measurement_of
from nas.export.library.library import WAITING_S
from nas.export.manifest import Latency
from nas.search.objectives import objective
from nas.search.units import show, show_latency
from nas.verification.finding import Finding

TRIAL_S = 60.0  # for a file to load
LONGEST_TRIAL_S = 600.0  # and to answer, whatever its manifest says of its latency
SLACK = 20.0  # times as long as its first examples took
MOST_RUNS = 1000  # of a model in one measurement of its latency: windows, warm-ups, repeats
SHOWN = 16  # digits of a hash


@dataclass(frozen=True)
class Claimed:
    """What a manifest says of its file.

    Attributes:
        claims: digest of the manifest's claims, which the file must have; None where the manifest is of a
            version without: then the file must have none.
        opset: of ONNX's own operators.
        integer_kernels: that run it.
        versions: of the packages that made it.
        requires: of the processor.
    """

    claims: str | None
    opset: int
    integer_kernels: int
    versions: Mapping[str, str]
    requires: Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """What the file says of itself.

    Attributes:
        claims: the digest in it; None where it has none.
        opset, integer_kernels: see `Claimed`.
        exact_sums: whether its integer sums must not saturate.
    """

    claims: str | None
    opset: int
    integer_kernels: int
    exact_sums: bool


def check_facts(engine: FileEngine, claimed: Claimed, seen: Seen) -> Iterator[Finding]:
    """Yield what a file is, beside what its manifest says of it."""
    if claimed.claims is not None or seen.claims is not None:  # or its manifest was made an older one
        then, now = ((digest or "none")[:SHOWN] for digest in (claimed.claims, seen.claims))
        yield Finding("claims in the file", then, now, seen.claims == claimed.claims)
    yield Finding("opset", str(claimed.opset), str(seen.opset), seen.opset == claimed.opset)
    yield _kernels(engine, claimed, seen)
    if seen.exact_sums or claimed.requires:
        yield _integer_sums(engine, claimed, seen)


def _kernels(engine: FileEngine, claimed: Claimed, seen: Seen) -> Finding:
    """Return the integer kernels that really run; another version of the engine may fuse otherwise."""
    then, now = claimed.integer_kernels, seen.integer_kernels
    info = engine.runtime.describe()
    same_engine = claimed.versions.get(info.engine) == info.engine_version
    return Finding("integer kernels", str(then), str(now), then == now or (False if same_engine else None))


def _integer_sums(engine: FileEngine, claimed: Claimed, seen: Seen) -> Finding:
    """Return what the file needs of this processor, by the manifest and by its weights."""
    claims_exact = claimed.requires.get("integer_sums") == "exact"
    info = engine.runtime.describe()
    sums = info.integer_sums
    option = f": open it with the session option {EXACT_SUMS}=1, as is done here"
    now = f"{sums} on {info.cpu}{option if sums == 'saturating' else ''}"
    claim = "exact ones are needed" if claims_exact else "nothing is needed"
    if claims_exact != seen.exact_sums:
        now = f"its weights {'need exact sums' if seen.exact_sums else 'need nothing'}"
    return Finding("integer sums", claim, now, None if claims_exact == seen.exact_sums else False)


def check_latency(
    model: Path,
    engine: FileEngine,
    latency: Latency,
    device: DeviceInfo,
    *,
    task: str,
    request: Mapping[str, Any],
    run_s: float,
) -> Finding:
    """Return the file's latency by the clock and the options that it was exported with.

    Args:
        task: what measures it in a process of its own, given its path, an engine, a plan and the `request`.
        run_s: what one run took.
    """
    seconds = partial(show, objective("latency"))
    looked_up = ", looked up" if latency.replayed else ""
    then = f"{seconds(latency.median_s)} on {device.name}, {device.cpu}{looked_up}"
    if engine.refused:
        return Finding("latency", then, f"not measured: {engine.refused}", None)
    if engine.runtime.describe().timeless:
        return Finding("latency", then, f"not measured: {engine.title} has no times", None)
    plan = plan_on(MeasurePlan(waiting_s=WAITING_S), engine.runtime.clock)
    try:
        whole = {**request_of(model, engine), "plan": plan.to_json(), **request}
        limits = Limits(TRIAL_S + MOST_RUNS * run_s * device.batch)
        document, _ = confined(task, whole, limits=limits)
        now = measurement_of(document)
    except (ConfinedError, MismatchError) as error:
        return Finding("latency", then, str(error), False)
    if now.error is not None:
        return Finding("latency", then, now.error, False)
    info = engine.runtime.describe()
    place = "here" if info.board is None and device.cpu == cpu_model() else f"on {_place(info)}"
    ratio = (
        f" ({now.median_s / latency.median_s:.2f} x)" if engine.own else f", {device.engine} was timed then"
    )
    measured = f"{show_latency(now.median_s, now.iqr_s, now.load)}{ratio}, {place}"
    return Finding("latency", then, measured, None)


def trial_s(latency: Latency | None, examples: int) -> float:
    """Return how long a file may take to be loaded and to answer, by what its manifest says it takes."""
    if latency is None:
        return LONGEST_TRIAL_S
    return min(TRIAL_S + SLACK * latency.median_s * examples, LONGEST_TRIAL_S)


def check_memory(model: Path, engine: FileEngine, claimed: Mapping[str, float]) -> Finding:
    """Return whether a file needs on a microcontroller what is claimed: it is counted again, in a process of
    its own.
    """
    then = _memory_text(claimed)
    if not isinstance(engine.runtime, CountsMemory):
        return Finding("memory", then, f"not counted: {engine.title} cannot", None)
    try:
        request = request_of(model, engine)
        document, _ = confined("nas.checks.file_tasks:file_memory", request, limits=Limits(LONGEST_TRIAL_S))
        now = parse(dict[str, float], document)
    except (ConfinedError, MismatchError) as error:
        return Finding("memory", then, str(error), False)
    same = all(now.get(name) == value for name, value in claimed.items())
    return Finding("memory", then, _memory_text({name: now.get(name, 0) for name in claimed}), same)


def _memory_text(memory: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:,.0f} bytes" for name, value in memory.items())


def _place(device: DeviceInfo) -> str:
    """Return where a file was timed now."""
    return device.cpu if device.board is None else f"{device.board.address}, {device.cpu}"


def request_of(model: Path, engine: FileEngine, **more: Any) -> dict[str, Any]:
    """Return what a task in a process of its own is asked about a file: `runs` is what its engine runs in its
    place, where that lies beside it.
    """
    runs = own_path(engine.runtime, model)
    return {"path": str(model.absolute()), "runs": str(runs.absolute()), "device": engine.request(), **more}
