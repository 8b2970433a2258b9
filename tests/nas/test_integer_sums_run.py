"""What a run does about a device whose integer sums may saturate: formats, fingerprints and words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.runtimes.info import DeviceInfo
from hw_profiles.runtimes.ort.runtime import OrtRuntime
from hw_profiles.runtimes.plugin import open_device
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.identity import supernet_identity
from nas.export.references import fp32_candidate
from nas.run.config import DeviceSection, ExportSection, QuantizedSection, RunConfig, SpaceSection
from nas.run.default_formats import with_exact
from nas.run.reporting import PlainReporter
from nas.run.run import Run
from nas.stages.profile import run_profile
from supernet.families.family import load_family
from supernet.space.space import Choice, SearchSpace, in_fp32

REDUCED = (IntegerSums.SATURATING, IntegerSums.UNKNOWN)


@pytest.fixture
def run_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A run on this machine's ONNX Runtime, as if its integer kernels did something else."""
    described = OrtRuntime.describe

    def run(sums: IntegerSums, **sections: object) -> Run:
        def describe(self: OrtRuntime) -> DeviceInfo:
            return replace(described(self), integer_sums=sums.value)

        monkeypatch.setattr(OrtRuntime, "describe", describe)
        return Run(tmp_path, replace(RunConfig(), **sections))

    return run


@pytest.mark.parametrize("sums", IntegerSums)
def test_int8_exact_is_searched_by_default_where_int8_has_7_bits(run_on, sums: IntegerSums) -> None:
    run = run_on(sums)
    options = {choice.options for choice in run.family.space().choices if choice.kind == "precision"}
    assert options == {("fp32", "int8", "int8-exact") if sums in REDUCED else ("fp32", "int8")}


def test_formats_that_are_named_are_taken_as_they_are(run_on) -> None:
    named = run_on(IntegerSums.SATURATING, space=SpaceSection("digits-mbconv", ("fp32", "int8")))
    own = load_family("digits-mbconv", in_channels=1, classes=10)
    assert named.family.space().fingerprint == own.space().fingerprint


def test_a_space_without_int8_and_a_device_without_int8_exact_keep_theirs(profile_file: Path) -> None:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    floats = load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32",))
    positions = load_family("apq-proxyless", in_channels=3, classes=10)
    recorded = Run(
        profile_file.parent, replace(RunConfig(), device=DeviceSection(f"recorded:{profile_file}"))
    )
    assert with_exact(family, open_device("ort")) == ("fp32", "int8", "int8-exact")
    assert with_exact(floats, open_device("ort")) is None
    assert with_exact(positions, open_device("ort")) is None
    assert with_exact(family, recorded.device) is None


@pytest.mark.parametrize("sums", REDUCED)
def test_what_depends_on_rounded_weights_has_fingerprints_of_its_own(run_on, sums: IntegerSums) -> None:
    space = SpaceSection("digits-mbconv", ("fp32", "int8"))
    stages = ("profile", "train", "sample", "search", "export")
    exact, other = (run_on(each, space=space) for each in (IntegerSums.EXACT, sums))
    found = []
    for each, kind in ((exact, IntegerSums.EXACT), (other, sums)):
        run_on(kind)
        found.append([each.fingerprint(stage) for stage in stages])
        assert bool(supernet_identity(each).get("int8")) is (kind in REDUCED)
    same = {stage: a == b for stage, a, b in zip(stages, *found, strict=True)}
    assert same == {"profile": False, "train": True, "sample": False, "search": False, "export": False}


def test_a_quantized_phase_depends_on_it_too(run_on) -> None:
    sections = {
        "space": SpaceSection("digits-mbconv", ("fp32", "int8", "int4")),
        "quantized": QuantizedSection(epochs=1.0),
    }
    fingerprints = [run_on(sums, **sections).fingerprint("train") for sums in IntegerSums]
    assert fingerprints[0] != fingerprints[1] == fingerprints[2]


def test_portable_files_are_made_for_any_device(run_on) -> None:
    run = run_on(IntegerSums.EXACT, export=ExportSection(portable=True))
    assert NetworkBuilder(run).sums is IntegerSums.EXACT
    assert NetworkBuilder(run, portable=run.config.export.portable).sums.reduced


@pytest.mark.parametrize(
    ("sums", "said"), [("exact", ""), ("unknown", "does not say"), ("saturating", "saturate")]
)
def test_a_profile_that_may_saturate_says_what_int8_means(
    device_profile: DeviceProfile, tmp_path: Path, sums: str, said: str
) -> None:
    path = tmp_path / "device.json"
    save_profile(replace(device_profile, device=replace(device_profile.device, integer_sums=sums)), path)
    assert load_profile(path).device.integer_sums == sums
    run = Run(tmp_path, replace(RunConfig(), device=DeviceSection(f"recorded:{path}")))
    lines: list[str] = []
    run_profile(run, PlainReporter(lines.append))
    text = "\n".join(lines)
    assert ("int8 has weights of 7 bits" in text) is bool(said)
    assert said in text


def test_the_order_of_formats_does_not_matter() -> None:
    orders = (("fp32", "int8", "int4"), ("int8", "fp32", "int4"))
    first, second = (load_family("digits-mbconv", in_channels=1, classes=10, formats=each) for each in orders)
    assert first.space().fingerprint == second.space().fingerprint
    assert first.extremes() == second.extremes()


def test_networks_of_the_space_in_fp32_are_found_by_name() -> None:
    """Of a space whose formats are switched off by another choice, too, and of one in any order."""
    space = load_family("apq-proxyless", in_channels=3, classes=10).space()
    family = load_family("apq-proxyless", in_channels=3, classes=10)
    candidate = space.candidate(space.sample(1, rng=np.random.default_rng(1))[0])
    plain = fp32_candidate(space, candidate)
    assert plain is not None
    assert {str(precision) for precision in family.policy(plain).values()} == {"fp32"}
    options = (("int8", "fp32"), ("int4", "int8", "fp32"))
    mixed = SearchSpace("any", tuple(Choice(f"{i}.format", o, "precision") for i, o in enumerate(options)))
    assert in_fp32(mixed, mixed.sample(5, rng=np.random.default_rng(0))).tolist() == [[1, 2]] * 5
    integers = load_family("digits-mbconv", in_channels=1, classes=10, formats=("int8", "int4"))
    assert fp32_candidate(integers.space(), integers.extremes()["largest/int8"]) is None
