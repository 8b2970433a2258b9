"""Passes in C against those in Python, on cores and clocks of our own making: every sample is the same."""

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_profiles.measure.interleave import interleaved
from hw_profiles.measure.measurement import MeasurePlan, Samples
from hw_profiles.runtimes.transports import native
from tests.hw_profiles.restless import REFERENCE_S, Core, stretches

PLAN = MeasurePlan(rounds=8, window_s=1e-3, warmup_runs=1, waiting_s=2.0, sessions=2)
LEARNING_S = 1.0
TIMED = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_long)
CLOCK = ctypes.CFUNCTYPE(ctypes.c_double)
WATCH = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_double, ctypes.c_bool)


class Plan(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_long) for name in ("rounds", "sessions", "warmup_runs")),
        *((name, ctypes.c_double) for name in ("window_s", "quiet", "waiting_s", "energy_s")),
        *((name, ctypes.c_bool) for name in ("scale_disturbed", "thread_clock")),
    ]


class Reference(ctypes.Structure):
    _fields_ = [
        ("computation", TIMED),
        ("of", ctypes.c_void_p),
        ("seen", ctypes.c_long),
        ("fastest_s", ctypes.c_double * 52),
        ("quiet", ctypes.c_long),
        ("quiet_s", ctypes.c_double * 512),
    ]


class Function(ctypes.Structure):
    _fields_ = [
        ("sessions", ctypes.POINTER(ctypes.c_void_p)),
        ("context", ctypes.c_int),
        ("seconds", ctypes.POINTER(ctypes.c_double)),
        ("count", ctypes.c_size_t),
        ("quiet_share", ctypes.c_double),
    ]


class Passes(ctypes.Structure):
    _fields_ = [
        ("plan", Plan),
        ("timed", TIMED),
        ("clock", CLOCK),
        ("watch", WATCH),
        ("watcher", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class InC:
    """`interleave`, loaded from its library."""

    library: Any

    def samples(
        self, core: Core, times_s: Sequence[float], plan: MeasurePlan, contexts: Sequence[int]
    ) -> list[Samples]:
        sessions = [
            core.run(f"{i // plan.sessions}", times_s[i // plan.sessions])
            for i in range(len(times_s) * plan.sessions)
        ]

        def reference_run(of: object, count: int) -> float:
            start = core.now
            core.work(count * REFERENCE_S)
            return core.now - start

        reference = Reference(TIMED(reference_run))
        self.library.reference_measure.restype = self.library.interleave.restype = ctypes.c_double
        while core.now < LEARNING_S:
            self.library.reference_measure(ctypes.byref(reference))
        reference.quiet = 0
        functions = (Function * len(times_s))()
        for i, context in enumerate(contexts):
            numbers = [1 + i * plan.sessions + session for session in range(plan.sessions)]
            functions[i].sessions, functions[i].context = (ctypes.c_void_p * plan.sessions)(*numbers), context
        fields = {name: getattr(plan, name) for name, _ in Plan._fields_ if name != "thread_clock"}
        passes = Passes(
            Plan(**fields, thread_clock=False),
            TIMED(lambda session, count: sessions[session - 1](count)),
            CLOCK(lambda: core.now),
            WATCH(lambda of, share, waiting: 0.0),
        )
        waited_s = self.library.interleave(
            functions, ctypes.c_size_t(len(functions)), ctypes.byref(passes), ctypes.byref(reference)
        )
        return [Samples(tuple(each.seconds[: each.count]), each.quiet_share, waited_s) for each in functions]


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> InC:
    folder, path = Path(native.__file__).parent, tmp_path_factory.mktemp("passes") / "passes.so"
    sources = [str(folder / f"{name}.c") for name in ("passes", "text", "machine", "files")]
    options = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC", "-ffp-contract=off"]
    subprocess.run(["cc", *options, *sources, "-lm", "-o", str(path)], check=True)
    return InC(ctypes.CDLL(str(path)))


def quiet(now: float) -> float:
    return 1.0


def wave(now: float) -> float:
    return 1.0 + 0.5 * (int(now * 400) % 3 == 0)


CORES: dict[str, Callable[[], Callable[[float], float]]] = {
    "quiet": lambda: quiet,
    "wave": lambda: wave,
    "rarely quiet": lambda: stretches(np.random.default_rng(1), 0.25, mean_s=0.2),
    "never quiet again": lambda: lambda now: 1.0 if now < 1.01 else 1.7 + 0.1 * np.sin(100 * now),
}


@pytest.mark.parametrize("contexts", [[-1, -1, -1], [0, 1, 0]], ids=["alone", "paired"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", CORES)
def test_samples_are_those_of_python(
    in_c: InC, name: str, scaled: bool, contexts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    times_s, plan = (1e-4, 3e-4, 5e-3), replace(PLAN, scale_disturbed=scaled)
    core = Core(slowdown=CORES[name]())
    monkeypatch.setattr("hw_profiles.measure.interleave.time", core)
    monkeypatch.setattr("hw_profiles.measure.interleave.LEARNING_S", LEARNING_S)
    runs = [[core.run(f"{i}", seconds)] * plan.sessions for i, seconds in enumerate(times_s)]
    groups = [None if context < 0 else context for context in contexts]
    expected = interleaved(runs, plan, core.reference(), groups)
    here = Core(slowdown=CORES[name]())
    found = in_c.samples(here, times_s, plan, contexts)
    assert here.turns == core.turns
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.seconds == pytest.approx(theirs.seconds, abs=1e-12)
        assert ours.quiet_share == pytest.approx(theirs.quiet_share)
        assert ours.waited_s == pytest.approx(theirs.waited_s)
