"""Passes on a board: the same samples as here, and what heat does to them."""

import ast
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.measure import energy
from hw_profiles.measure.interleave import interleaved
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.transports.agent import timing
from hw_profiles.runtimes.transports.agent.conditions import HOT_C, Board
from hw_profiles.runtimes.transports.launch import ENERGY, PACKAGE, packed_agent
from tests.hw_profiles.restless import REFERENCE_S, Core, stretches

AGENT = Path(timing.__file__).parent
OWN = (*sorted(AGENT.glob("*.py")), *sorted(Path(energy.__file__).parent.glob("*.py")))
PLAN = MeasurePlan(rounds=8, window_s=1e-3, warmup_runs=1, waiting_s=2.0, clock="wall")


@pytest.fixture
def on_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Core], Core]:
    """Make a core's clock that of both implementations."""

    monkeypatch.setattr("hw_profiles.measure.interleave.LEARNING_S", timing.LEARNING_S)

    def patch(core: Core) -> Core:
        monkeypatch.setattr("hw_profiles.measure.interleave.time", core)
        monkeypatch.setattr("hw_profiles.runtimes.transports.agent.timing.time", core)
        return core

    return patch


class Cool(Board):
    """A board without sensors."""

    def held_back(self, core: int) -> bool:
        return False


def reference(core: Core) -> timing.Reference:
    def computation(count: int) -> float:
        start = core.now
        core.work(count * REFERENCE_S)
        return core.now - start

    return timing.Reference(computation)


def silent(what: str, **fields: object) -> None:
    """Hear nothing."""


def sampled(
    core: Core, seconds: Sequence[float], plan: MeasurePlan, contexts: Sequence[Hashable], there: bool
):
    runs = [[core.run("", each), core.run("", 1.01 * each)] for each in seconds]
    if not there:
        return [(s.seconds, s.quiet_share) for s in interleaved(runs, plan, core.reference(), contexts)]
    watch = timing.Watch(Cool(), 0, silent, plan.waiting_s)
    samples = timing.interleaved(runs, asdict(plan), reference(core), contexts, watch)
    return [(tuple(s["seconds"]), s["quiet_share"]) for s in samples]


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_samples_are_those_that_this_machine_would_give(
    on_clock: Callable[[Core], Core], seed: int, scale: bool
) -> None:
    """On the same restless core: to the last digit."""
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(5e-6, 4e-3, 12).tolist()
    contexts = [None, None, *rng.integers(0, 3, 10).tolist()]
    plan = replace(PLAN, scale_disturbed=scale, rounds=int(rng.integers(3, 9)))
    both = []
    for there in (False, True):
        core = on_clock(Core(slowdown=stretches(np.random.default_rng(seed), 0.4)))
        both.append(sampled(core, seconds, plan, contexts, there))
    assert both[0] == both[1]


@given(seconds=st.lists(st.floats(1e-6, 1e-2), min_size=1, max_size=4), rounds=st.integers(1, 6))
def test_each_has_its_windows(seconds: list[float], rounds: int) -> None:
    core = Core()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "time", core)
        plan = replace(PLAN, rounds=rounds)
        samples = sampled(core, seconds, plan, [None] * len(seconds), there=True)
    assert [len(s) for s, _ in samples] == [rounds] * len(seconds)
    assert {share for _, share in samples} == {1.0}


# -- heat --------------------------------------------------------------------------------------------------


def sysfs(root: Path, *, celsius: float = 50.0, trip_c: float | None = 80.0, mhz: float = 1800.0) -> Path:
    """Write what Linux says of a board with one core."""
    files = {
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": f"{celsius * 1000:.0f}",
        "sys/class/thermal/thermal_zone1/type": "battery",
        "sys/class/thermal/thermal_zone1/temp": "99000",
        "proc/meminfo": "MemTotal:  4000 kB",
        "proc/cpuinfo": "processor : 0\nmodel name : Cortex-A76\nFeatures : asimd asimddp",
    }
    if trip_c is not None:
        files["sys/class/thermal/thermal_zone0/trip_point_0_type"] = "passive"
        files["sys/class/thermal/thermal_zone0/trip_point_0_temp"] = f"{trip_c * 1000:.0f}"
    for core in range(256):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        if core < 2:
            files[f"{folder}/scaling_governor"] = "performance"
            files[f"{folder}/scaling_cur_freq"] = f"{mhz * 1000:.0f}"
            files[f"{folder}/scaling_max_freq"] = "1800000"
            files[f"{folder}/cpuinfo_max_freq"] = "1800000"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_a_board_says_what_it_is(tmp_path: Path) -> None:
    board = Board(str(sysfs(tmp_path)))
    facts = board.facts()
    assert facts["cpu"] == "Cortex-A76"
    assert facts["memory_bytes"] == 4_096_000
    assert facts["flags"] == ["asimd", "asimddp"]
    assert board.governor(0) == "performance"
    assert board.frequency_hz(0) == 1_800_000_000
    assert board.temperature_c() == 50.0  # not the battery's
    assert board.limit_c() == 80.0


def test_what_is_not_there_is_not_said(tmp_path: Path) -> None:
    board = Board(str(tmp_path))
    facts = board.facts()
    assert facts["governor"] is facts["max_frequency_hz"] is facts["memory_bytes"] is None
    assert facts["cpu"]
    assert board.temperature_c() is None
    assert board.limit_c() == HOT_C
    assert not board.held_back(0)
    assert board.cooled(0)


def test_nonsense_of_a_sensor_is_none(tmp_path: Path) -> None:
    zone = sysfs(tmp_path) / "sys/class/thermal/thermal_zone0"
    for text in ("", "warm", "-274000", "99999999"):
        (zone / "temp").write_text(text)
        assert Board(str(tmp_path)).temperature_c() is None


@pytest.mark.parametrize(
    ("celsius", "mhz", "held"), [(50, 1800, False), (80, 1800, True), (60, 1000, True), (60, 1750, False)]
)
def test_heat_and_a_falling_frequency_hold_it_back(
    tmp_path: Path, celsius: float, mhz: float, held: bool
) -> None:
    assert Board(str(sysfs(tmp_path, celsius=celsius, mhz=mhz))).held_back(0) is held


def test_a_frequency_that_follows_the_load_does_not(tmp_path: Path) -> None:
    root = sysfs(tmp_path, mhz=600)
    (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").write_text("ondemand")
    assert not Board(str(root)).held_back(0)


class Hot(Board):
    """A board that cools by a degree in each second that nothing runs."""

    def __init__(self, celsius: float) -> None:
        super().__init__("/nowhere")
        self.celsius = celsius

    def temperature_c(self) -> float:
        return self.celsius

    def limit_c(self) -> float:
        return 80.0

    def frequency_hz(self, core: int, which: str = "scaling_cur_freq") -> int:
        return 1_000_000_000 if self.celsius >= 80 else 1_800_000_000


@pytest.mark.parametrize(("budget_s", "waited_s"), [(100.0, 12.0), (3.0, 3.0), (0.0, 0.0)])
def test_heat_is_waited_out_while_there_is_time(
    on_clock: Callable[[Core], Core], budget_s: float, waited_s: float
) -> None:
    core, board, said = on_clock(Core()), Hot(86.0), []

    def sleep(seconds: float) -> None:
        core.now += seconds
        board.celsius -= seconds

    core.sleep = sleep  # type: ignore[attr-defined]
    watch = timing.Watch(board, 0, lambda what, **fields: said.append(fields), budget_s)
    watch.look(share=0.5)
    assert watch.throttled_s == pytest.approx(waited_s, abs=timing.COOLING_S)
    assert said[0] == {"share": 0.5}
    assert all("cooling_c" in fields for fields in said[1:])
    conditions = watch.conditions()
    assert conditions["temperature_c"] == [86.0, 86.0]
    assert conditions["frequency_hz"] == [1_000_000_000, 1_000_000_000]


def test_cooling_counts_as_waiting(on_clock: Callable[[Core], Core]) -> None:
    core, board = on_clock(Core()), Hot(86.0)

    def sleep(seconds: float) -> None:
        core.now += seconds
        board.celsius -= seconds

    core.sleep = sleep  # type: ignore[attr-defined]
    watch = timing.Watch(board, 0, silent, 100.0)
    [samples] = timing.interleaved([[core.run("", 1e-3)]], asdict(PLAN), reference(core), [None], watch)
    assert samples["waited_s"] == pytest.approx(12.0, abs=1.0)
    assert samples["seconds"] == pytest.approx([1e-3] * PLAN.rounds, rel=1e-3)


# -- one file for old Pythons ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OWN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_module_of_the_agent_is_python_3_8(path: Path) -> None:
    """Its syntax, and that what newer versions evaluate at once is an annotation here."""
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    tree.body = [node for node in tree.body if not isinstance(node, ast.If)]  # for type checkers
    future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    assert future or len(tree.body) == 1
    evaluated = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.Expr | ast.Call)]
    generic = {"list", "dict", "tuple", "set", "type", "Sequence", "Mapping", "Callable", "Iterator"}
    for outer in evaluated:
        for node in ast.walk(outer):
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
                assert node.value.id not in generic, f"{path.name}:{node.lineno}"


def test_the_agent_imports_nothing_but_itself_and_numpy() -> None:
    """Engines are imported by name, when they are asked for."""
    named = set[str]()
    for path in OWN:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                named.add(str(node.module))
    own = {name for name in named if name.startswith((PACKAGE, ENERGY))}
    assert {name for name in named - own if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "numpy"
    }
    assert len(packed_agent()) < 40_000


def test_the_agent_is_the_same_bytes_every_time() -> None:
    first = packed_agent()
    packed_agent.cache_clear()
    assert packed_agent() == first
