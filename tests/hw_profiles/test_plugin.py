"""A device is one string: what it stands for, and what is said of one that stands for nothing."""

import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from hw_profiles import registry
from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import choice_of, choose, open_device

READ = {
    "ort": ("ort", {"provider": "CPU", "threads": 1, "batch": 1}),
    "ort:threads=4,provider=CUDA": ("ort", {"provider": "CUDA", "threads": 4, "batch": 1}),
    "ort:CUDA,batch=8": ("ort", {"provider": "CUDA", "threads": 1, "batch": 8}),
    "tvm:aarch64-linux-gnu:cortex-a76": ("tvm", {"target": "aarch64-linux-gnu:cortex-a76"}),
    "tvm:llvm -mcpu=znver4": ("tvm", {"target": "llvm -mcpu=znver4"}),
    "recorded:runs/a=b,c.json": ("recorded", {"profile": "runs/a=b,c.json"}),
    "table:some,phone.json,resolution=160": ("table", {"path": "some,phone.json", "resolution": 160}),
    "systolic:bitfusion": ("systolic", {"accelerator": "bitfusion"}),
}
REFUSED = {
    "ort:thread=4": r"device 'ort' has no option thread \(= '4'\); did you mean 'threads'\?; options",
    "ort:threads=0": r"device.threads must be a whole number from 1 to 1,024, got 0",
    "ort:threads=4,CUDA": r"device 'ort': 'CUDA' is no option=value; options of 'ort': provider \(text\)",
    "tvm:threads=2": r"device 'tvm' has no option threads \(= '2'\); .*have it; options",
    "tvm:key=pi": r"boards over RPC need both a tracker and a key",
    "recorded": r"device 'recorded' needs to know which one: write recorded:PROFILE.json",
    "abacus:3": r"unknown device 'abacus'; known: adb, litert, ncnn, openvino, ort, recorded, ssh, systolic",
}


def test_a_string_says_which_device_and_how() -> None:
    for text, (name, options) in READ.items():
        choice = choose(text)
        assert choice.name == name
        assert options.items() <= choice.settings.items(), text
        assert choose(str(choice)) == choice, text


def test_what_is_wrong_with_one_is_said_in_one_line() -> None:
    for text, message in REFUSED.items():
        with pytest.raises(TrilobitError, match=message) as error:
            choose(text)
        assert "\n" not in str(error.value)


def test_options_beside_the_string_go_before_those_in_it() -> None:
    assert choose("ort:threads=4", {"threads": 2}).settings["threads"] == 2
    with pytest.raises(
        TrilobitError, match=r"device\.threads must be a whole number from 1 to 1,024, got '4'"
    ):
        choose("ort", {"threads": "4"})


def test_what_a_device_calls_itself_says_how_to_open_it_again(profile_file: Path) -> None:
    info = open_device("ort:threads=2,batch=3").describe()
    choice = choice_of(info)
    assert choice is not None
    assert choice.open().describe() == info
    assert choice_of(open_device("systolic:bitfusion").describe()) is None
    assert choice_of(open_device(f"recorded:{profile_file}").describe()) is None


def test_packages_are_read_once_and_again_when_one_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[int] = []
    monkeypatch.setattr(registry, "entry_points", lambda: (readings.append(1), entry_points())[1])
    monkeypatch.syspath_prepend(tmp_path)
    os.utime(tmp_path, ns=(0, 0))
    for group in ("trilobit.devices", "trilobit.formats", "trilobit.devices"):
        assert "mine" not in registry.plugins(group)
    assert len(readings) == 1
    installed = tmp_path / "mine-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[trilobit.devices]\nmine = mine:DEVICE\n")
    assert registry.plugins("trilobit.devices")["mine"] == "mine:DEVICE"
    assert "mine" not in registry.plugins("trilobit.formats")
