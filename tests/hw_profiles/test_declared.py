"""What plug-ins declare of themselves, and where: no list of names elsewhere decides."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.engines import EXTRAS, PACKAGES, missing_engine, version_of
from hw_profiles.errors import TrilobitError
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.registry import load
from hw_profiles.runtimes.info import DeviceInfo

ROOT = Path(__file__).parents[2]
KINDS = ("devices", "spaces", "formats", "searchers", "predictors", "objectives", "data")
GROUPS = {f"trilobit.{kind}" for kind in KINDS}
ATTRIBUTES = {"trilobit.claims", "trilobit.exits", "trilobit.genes"}  # of trials in the storage, and of files
PACKAGES_HERE = ("hw_profiles", "supernet", "predictors", "nas")
NAMED = re.compile(r"\btrilobit\.(?:[a-z]+s|data)\b")
LOADED = re.compile(r"(?:(?:load|names|OneOf)\([^()]*|^[A-Z_]+ = )\"(trilobit\.[a-z]+)\"", re.MULTILINE)


def test_entry_point_groups_are_the_same_in_code_and_documents() -> None:
    said = [*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), ROOT / "hw_profiles" / "registry.py"]
    named = {word for path in said for word in NAMED.findall(path.read_text())}
    assert named - ATTRIBUTES == GROUPS
    code = [path for package in PACKAGES_HERE for path in (ROOT / package).rglob("*.py")]
    assert {word for path in code for word in LOADED.findall(path.read_text())} - ATTRIBUTES == GROUPS


@pytest.mark.parametrize(
    ("engine", "figures"),
    [("analytical", "modelled"), ("published table", "published"), ("onnxruntime", "measured")],
)
def test_profiles_from_before_say_it_by_their_engine(
    engine: str, figures: str, device_profile: DeviceProfile, tmp_path: Path
) -> None:
    old = replace(device_profile, device=DeviceInfo("old", "none", engine, "1", "none"))
    save_profile(old, tmp_path / "old.json")
    assert load_profile(tmp_path / "old.json").device.figures == figures


def test_a_plug_in_that_models_says_so_itself(device_profile: DeviceProfile, tmp_path: Path) -> None:
    device = DeviceInfo("mine", "none", "my formula", "1", "none", figures="modelled")
    save_profile(replace(device_profile, device=device), tmp_path / "mine.json")
    assert load_profile(tmp_path / "mine.json").device.figures == "modelled"
    assert '"source": "modelled"' in (tmp_path / "mine.json").read_text().replace('":"', '": "')


def test_an_engine_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError("No module named 'tvm'", name="tvm.runtime")

    monkeypatch.setattr("hw_profiles.registry.resolve_name", missing)
    with pytest.raises(TrilobitError, match=r"x: .* apache-tvm is not installed: pip .* 'trilobit\[tvm\]'"):
        load("trilobit.devices", {"x": "nowhere:X"}, "x")


def test_a_module_of_ours_that_is_missing_is_no_engine() -> None:
    assert missing_engine(ModuleNotFoundError("nas.nowhere", name="nas.nowhere")) == ""
    assert missing_engine(ModuleNotFoundError("?")) == ""


def test_packages_are_declared() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    assert not [package for package in PACKAGES.values() if f'"{package}' not in declared]


def test_extras_hold_what_their_packages_are_said_to_be_in() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, required = project["optional-dependencies"], " ".join(project["dependencies"])
    wrong = [p for p, extra in EXTRAS.items() if not any(line.startswith(p) for line in extras[extra])]
    assert not wrong
    assert not [package for package in EXTRAS if package in required]


def test_the_version_of_what_is_not_there_is_none() -> None:
    assert version_of("trilobit-of-another-world") is None
    assert version_of("numpy")
