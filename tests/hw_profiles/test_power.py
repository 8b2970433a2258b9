"""Energy from samples of power: made-up sensors' files, and programs that say what NVIDIA's do."""

import contextlib
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.measure.energy import EnergyError, Meter, find_meter, joules_of, meter
from hw_profiles.measure.energy.power import PowerMeter, _Integral
from hw_profiles.measure.energy.programs import find_nvidia_smi, find_tegrastats
from hw_profiles.measure.energy.sensors import find_sensors

WATTS, RUN_S, SAMPLE_S = 7.0, 1.3e-4, 0.01
JETSON = (
    "11-30-2026 03:00:00 RAM 2442/30536MB (lfb 5x4MB) SWAP 0/15268MB (cached 0MB) CPU [2%@729,off] "
    "VDD_GPU_SOC 2391mW/2391mW VDD_CPU_CV 398mW/400mW VIN_SYS_5V0 4030mW/4030mW"
)
NANO = "RAM 900/3964MB (lfb 2x4MB) IRAM 0/252kB(lfb 252kB) CPU [5%@102] POM_5V_IN 2068/2050 POM_5V_GPU 80/80"


def samples_of(source: Meter | str, count: int) -> list[float]:
    assert isinstance(source, PowerMeter), source
    stopped = threading.Event()
    stream = source.samples(stopped)
    try:
        return list(islice(stream, count))
    finally:
        stopped.set()
        stream.close()  # type: ignore[attr-defined]


def program(path: Path, *lines: str) -> str:
    """A program that says these lines, the last one again and again."""
    first = "".join(f"print({line!r}, flush=True)\n" for line in lines[:-1])
    text = f"#!{sys.executable}\nimport time\n{first}while True:\n  print({lines[-1]!r}, flush=True)\n"
    path.write_text(f"{text}  time.sleep(0.001)\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def sensor(root: Path, number: int, chip: str, **files: object) -> Path:
    folder = root / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{chip}\n")
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def test_a_sensor_that_multiplies_by_itself_gives_microwatts(tmp_path: Path) -> None:
    sensor(tmp_path, 0, "coretemp", temp1_input=40_000)
    sensor(tmp_path, 1, "ina226", power1_input=3_250_000, in1_input=5_000, curr1_input=999, in0_input=1)
    source = find_sensors(tmp_path)
    assert samples_of(source, 2) == [3.25, 3.25]
    assert isinstance(source, PowerMeter)
    assert source.describe() == "INA sensors: all that ina226 hwmon1 channel 1 drew while it ran"


def test_others_give_volts_and_amperes_of_each_rail(tmp_path: Path) -> None:
    channels = {"in1_label": "VDD_CPU", "in2_label": "VDD_SOC", "in3_label": "NC"}
    values = {"in1_input": 5_000, "curr1_input": 400, "in2_input": 4_800, "curr2_input": 250}
    sensor(tmp_path, 3, "ina3221", **channels, **values, in3_input=1, curr3_input=1)
    source = find_sensors(tmp_path)
    assert samples_of(source, 1) == [pytest.approx(5.0 * 0.4 + 4.8 * 0.25)]
    assert isinstance(source, PowerMeter)
    assert "VDD_CPU and VDD_SOC drew" in source.describe()


def test_the_rail_that_feeds_the_others_counts_alone(tmp_path: Path) -> None:
    labels = {"in1_label": "VDD_IN", "in2_label": "VDD_CPU_GPU_CV"}
    values = {"in1_input": 5_000, "curr1_input": 1_000, "in2_input": 5_000, "curr2_input": 700}
    sensor(tmp_path, 0, "ina3221", **labels, **values)
    assert samples_of(find_sensors(tmp_path), 1) == [pytest.approx(5.0)]


def test_a_channel_that_is_off_is_left_out_and_no_sensor_is_a_reason(tmp_path: Path) -> None:
    folder = sensor(tmp_path, 0, "ina219", in1_input="", curr1_input=3)
    assert find_sensors(tmp_path) == f"no INA sensor below {tmp_path}"
    (folder / "in1_input").write_text("12000")
    assert samples_of(find_sensors(tmp_path), 1) == [pytest.approx(0.036)]
    assert "no INA sensor" in str(find_sensors(tmp_path / "missing"))


def test_a_jetson_names_its_rails(tmp_path: Path) -> None:
    new = find_tegrastats(program(tmp_path / "new", JETSON))
    assert samples_of(new, 2) == [pytest.approx(2.391 + 0.398 + 4.030)] * 2
    old = find_tegrastats(program(tmp_path / "old", NANO))
    assert samples_of(old, 1) == [pytest.approx(2.068)]
    assert isinstance(old, PowerMeter)
    assert old.describe() == "tegrastats: all that POM_5V_IN drew while it ran"


def test_a_card_says_watts(tmp_path: Path) -> None:
    card = find_nvidia_smi(program(tmp_path / "nvidia-smi", "71.93", "72.10"))
    assert samples_of(card, 2) == [71.93, 72.10]
    assert isinstance(card, PowerMeter)
    assert card.describe() == "nvidia-smi: all that card 0 drew while it ran"


@pytest.mark.parametrize(
    ("line", "reason"),
    [("[N/A]", "knows no power of card 0: it says '[N/A]'"), ("No devices", "'No devices'")],
)
def test_a_card_without_power_is_a_reason(tmp_path: Path, line: str, reason: str) -> None:
    assert reason in str(find_nvidia_smi(program(tmp_path / "nvidia-smi", line)))


def test_programs_that_are_missing_or_say_nothing_are_reasons(tmp_path: Path) -> None:
    assert "no /none/tegrastats" in str(find_tegrastats("/none/tegrastats"))
    assert "no /none/nvidia-smi" in str(find_nvidia_smi("/none/nvidia-smi"))
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 9\n")
    silent.chmod(0o755)
    assert "or no card 0" in str(find_nvidia_smi(str(silent)))
    bare = find_tegrastats(program(tmp_path / "bare", "RAM 2442/30536MB CPU [2%@729]"))
    assert "names no power rail" in str(bare)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100)), min_size=2, max_size=20))
def test_energy_is_the_area_below_power(steps: list[tuple[float, float]]) -> None:
    integral, now_s, expected_j = _Integral(), 0.0, 0.0
    for i, (step_s, watts) in enumerate(steps):
        now_s += step_s
        integral.add(now_s, watts)
        expected_j += step_s * (watts + steps[i - 1][1]) / 2 if i else 0.0
    assert integral.joules() == pytest.approx(expected_j)


@dataclass
class SampledMachine:
    """Time passes only while something runs; power is sampled every 10 ms, and speaks of before at first."""

    updates: int = 20
    settling_s: float = 0.5
    now_s: float = 0.0
    samples: int = 0
    integral: _Integral = field(default_factory=_Integral)

    def run(self, count: int) -> float:
        self.now_s += count * RUN_S
        while self.samples * SAMPLE_S <= self.now_s:
            old = self.samples * SAMPLE_S < self.settling_s
            self.integral.add(self.samples * SAMPLE_S, 3 * WATTS if old else WATTS)
            self.samples += 1
        return count * RUN_S

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[], float]]:
        yield self.integral.joules

    def describe(self) -> str:
        return "made up"


def test_joules_per_run_are_power_times_time_once_it_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SampledMachine()
    monkeypatch.setattr(meter.time, "perf_counter", lambda: machine.now_s)
    [found] = joules_of([machine.run], machine, seconds=0.1)
    assert found == pytest.approx(WATTS * RUN_S, rel=0.02)
    assert machine.now_s >= machine.settling_s + machine.updates * SAMPLE_S


def test_a_source_that_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "STUCK_S", 0.02)
    source = PowerMeter("made up", "all", lambda stopped: iter((1.0, 1.0)), 20, 0.0)
    with pytest.raises(EnergyError, match=r"made up: all that all drew while it ran\) has not moved"):
        joules_of([lambda count: time.sleep(1e-3) or 0.0], source, seconds=0.1)


def test_the_first_meter_counts_and_without_one_all_reasons_are_given(tmp_path: Path) -> None:
    sensor(tmp_path, 0, "ina219", in1_input=1, curr1_input=1)
    finders = (lambda: "no counters", lambda: find_sensors(tmp_path), lambda: "never asked")
    assert isinstance(find_meter(finders=finders), PowerMeter)
    assert find_meter(finders=finders[::2]) == "no counters; never asked"
