"""Energy from a made-up powercap tree, whose counters advance with a made-up clock."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hw_profiles.measure.energy import EnergyError, joules_of, meter, powercap
from hw_profiles.measure.energy.meter import measure_energy
from hw_profiles.measure.energy.powercap import UPDATES, Domain, Powercap, find_powercap

RANGE_UJ = 262_143_328_850
WATTS = 12.0
RUN_S = 7e-5


def add_domain(root: Path, folder: str, name: str, uj: int = 1000, range_uj: int = RANGE_UJ) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{uj}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return path / "energy_uj"


@dataclass
class Machine:
    """Time passes only while something runs; every package's counter moves once a millisecond."""

    now_s: float = 0.0
    begins_uj: int = 0
    range_uj: int = RANGE_UJ
    watts: dict[str, float] = field(default_factory=dict)

    def run(self, count: int) -> float:
        self.now_s += count * RUN_S
        return count * RUN_S

    def read(self, path: Path) -> int:
        if path.name != "energy_uj":
            return int(path.read_text())
        used_uj = self.watts.get(path.parent.name, WATTS) * int(self.now_s * 1000) * 1000
        return int(self.begins_uj + used_uj) % self.range_uj


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(powercap, "read_counter", machine.read)
    monkeypatch.setattr(meter.time, "perf_counter", lambda: machine.now_s)
    return machine


def meter_of(root: Path) -> Powercap:
    meter = find_powercap(root, looks=0)
    assert isinstance(meter, Powercap), meter
    return meter


def test_packages_are_found_once_and_their_parts_not_at_all(tmp_path: Path) -> None:
    first = add_domain(tmp_path, "intel-rapl:0", "package-0")
    second = add_domain(tmp_path, "intel-rapl:1", "package-1")
    add_domain(tmp_path, "intel-rapl:0:0", "core")
    add_domain(tmp_path, "intel-rapl:0:1", "dram")
    add_domain(tmp_path, "intel-rapl:2", "psys")
    add_domain(tmp_path, "intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl").mkdir()  # the control type itself has neither a name nor a counter
    found = meter_of(tmp_path)
    assert {domain.name: domain.range_uj for domain in found.domains} == dict.fromkeys(
        ["package-0", "package-1"], RANGE_UJ
    )
    assert [domain.path for domain in found.domains] == [first, second]
    assert found.read_uj() == (1000, 1000)
    assert "package-0 and package-1" in found.describe()


def test_without_the_folder_there_is_a_reason(tmp_path: Path) -> None:
    reason = find_powercap(tmp_path / "powercap")
    assert isinstance(reason, str)
    assert "shows no energy counters" in reason


def test_without_a_package_there_is_a_reason(tmp_path: Path) -> None:
    add_domain(tmp_path, "intel-rapl:0:0", "core")
    assert find_powercap(tmp_path) == f"{tmp_path} has no counter of a whole processor package"


def test_a_counter_for_root_only_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_domain(tmp_path, "intel-rapl:0", "package-0")

    def refuse(path: Path) -> int:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return int(path.read_text())

    monkeypatch.setattr(powercap, "read_counter", refuse)
    reason = find_powercap(tmp_path)
    assert isinstance(reason, str)
    assert "run as root" in reason
    assert f"chmod a+r {tmp_path}/*/energy_uj" in reason
    assert "\n" not in reason


@pytest.mark.parametrize("content", ["", "many"])
def test_a_broken_counter_is_a_reason(tmp_path: Path, content: str) -> None:
    add_domain(tmp_path, "intel-rapl:0", "package-0").write_text(content)
    assert "cannot be read" in str(find_powercap(tmp_path))


def test_counters_that_stand_still_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_domain(tmp_path, "intel-rapl:0", "package-0")
    monkeypatch.setattr(powercap.time, "sleep", lambda seconds: None)
    assert find_powercap(tmp_path) == f"the counters below {tmp_path} stand still"
    looks = itertools.count()
    monkeypatch.setattr(
        powercap, "read_counter", lambda path: 0 if "range" in path.name else next(looks) // 5
    )
    assert isinstance(find_powercap(tmp_path), Powercap)


def test_without_time_for_it_there_is_no_energy(machine: Machine, tmp_path: Path) -> None:
    add_domain(tmp_path, "intel-rapl:0", "package-0")
    assert joules_of([machine.run], meter_of(tmp_path), seconds=0.0) == [None]
    assert joules_of([machine.run], meter_of(tmp_path), seconds=0.1) == [
        pytest.approx(WATTS * RUN_S, rel=0.02)
    ]


def test_joules_per_run_are_power_times_time(machine: Machine, tmp_path: Path) -> None:
    add_domain(tmp_path, "intel-rapl:0", "package-0")
    assert measure_energy(machine.run, meter_of(tmp_path), seconds=0.5) == pytest.approx(
        WATTS * RUN_S, rel=1 / UPDATES
    )
    assert machine.now_s >= 0.5


def test_all_packages_count(machine: Machine, tmp_path: Path) -> None:
    for i, watts in enumerate((3.0, 5.0)):
        add_domain(tmp_path, f"intel-rapl:{i}", f"package-{i}")
        machine.watts[f"intel-rapl:{i}"] = watts
    found = measure_energy(machine.run, meter_of(tmp_path), seconds=0.2)
    assert found == pytest.approx(8.0 * RUN_S, rel=1 / UPDATES)


def test_runs_until_the_counter_has_moved_often_enough(machine: Machine, tmp_path: Path) -> None:
    add_domain(tmp_path, "intel-rapl:0", "package-0")
    measure_energy(machine.run, meter_of(tmp_path), seconds=0.0)
    assert UPDATES * 1e-3 <= machine.now_s < 4 * UPDATES * 1e-3


def test_a_counter_that_begins_again_loses_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.range_uj = 50_000  # many turns within the measurement
    machine.begins_uj = 49_000
    add_domain(tmp_path, "intel-rapl:0", "package-0", range_uj=50_000)
    found = measure_energy(machine.run, meter_of(tmp_path), seconds=0.2)
    assert found == pytest.approx(WATTS * RUN_S, rel=1 / UPDATES)


@pytest.mark.parametrize(
    ("before", "after", "expected_j"), [((5,), (1_000_005,), 1.0), ((99_999_990,), (10,), 20e-6)]
)
def test_wrap_around(before: tuple[int], after: tuple[int], expected_j: float) -> None:
    meter = Powercap((Domain("package-0", Path("none"), 100_000_000),))
    assert meter.between_j(before, after) == pytest.approx(expected_j)


def test_a_counter_that_stands_still_is_an_error(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_domain(tmp_path, "intel-rapl:0", "package-0")
    monkeypatch.setattr(powercap, "read_counter", lambda path: RANGE_UJ if "range" in path.name else 7)
    with pytest.raises(EnergyError, match=r"package-0 used while it ran\) has not moved"):
        measure_energy(machine.run, meter_of(tmp_path), seconds=0.1)


def test_slow_runs_count_too(machine: Machine, tmp_path: Path) -> None:
    """A run that takes many updates of the counter."""
    add_domain(tmp_path, "intel-rapl:0", "package-0")

    def run(count: int) -> float:
        machine.now_s += 0.02 * count
        return 0.02 * count

    found = measure_energy(run, meter_of(tmp_path), seconds=0.1)
    assert found == pytest.approx(WATTS * 0.02, rel=1 / UPDATES)
