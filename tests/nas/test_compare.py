"""`compare_profiles` on files: what it prints, gives and draws."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import Layer
from hw_profiles.measure.measurement import Measurement
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profile_json import load_profile, save_profile
from hw_profiles.runtimes.info import DeviceInfo
from nas.cli import compare
from nas.cli.compare import NETWORKS, SEED, compare_networks, compare_profiles
from nas.run.reporting import PlainReporter, Reporter
from supernet.families.family import Family

SVG = "{http://www.w3.org/2000/svg}"


def other_s(layer: Layer, seconds: float) -> float:
    """Depthwise convolutions are slower there, all else is faster."""
    return seconds * (3.0 if layer.depthwise else 0.8)


@pytest.fixture(scope="session")
def other_profile(device_profile: DeviceProfile) -> DeviceProfile:
    table = {
        layer: Measurement(tuple(other_s(layer, sample) for sample in row.samples_s))
        for layer, row in device_profile.table.items()
    }
    device = DeviceInfo("other-<cpu>", "no CPU", "formula", "1", "none")
    return replace(device_profile, device=device, table=table)


@pytest.fixture(scope="session")
def other_file(other_profile: DeviceProfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profiles") / "other.json"
    save_profile(other_profile, path)
    return path


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def reporter(lines: list[str]) -> Reporter:
    return PlainReporter(lines.append)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tau of fewer networks."""
    monkeypatch.setattr(compare, "NETWORKS", 200)


def test_ratios_are_those_of_the_devices(
    profile_file: Path, other_file: Path, lines: list[str], reporter: Reporter
) -> None:
    document = compare_profiles(profile_file, other_file, space=None, plot=None, reporter=reporter)
    for kind in document["by_kind"]:
        expected = 3.0 if kind["kind"] == "depthwise" else 0.8
        assert kind["median_ratio"] == pytest.approx(expected, rel=1e-6)
    assert document["networks"] is None
    assert document["plot"] is None
    json.dumps(document, allow_nan=False)
    out = "\n".join(lines)
    assert "A is made-up-cpu, B is other-<cpu>" in out
    assert all(f"faster on {device}" in out for device in "AB")


def test_a_profile_against_itself(profile_file: Path, lines: list[str], reporter: Reporter) -> None:
    document = compare_profiles(profile_file, profile_file, space=None, plot=None, reporter=reporter)
    assert (document["median_ratio"], document["within"]["0.03"]) == (1.0, 1.0)
    assert "no unit is faster on A" in "\n".join(lines)


@pytest.mark.usefixtures("few")
def test_networks_are_ranked_as_the_profiles_rank_them(
    profile_file: Path, other_file: Path, lines: list[str], reporter: Reporter, family: Family
) -> None:
    document = compare_profiles(profile_file, other_file, space="digits-mbconv", plot=None, reporter=reporter)
    found, space = document["networks"], family.space()
    genomes = space.sample(200, rng=np.random.default_rng(SEED))
    works = [family.workload(space.candidate(genome)) for genome in genomes]
    profiles = (load_profile(profile_file), load_profile(other_file))
    a_s, b_s = (np.array([one.predict_s(work) for work in works]) for one in profiles)
    assert found["kendall_tau"] == pytest.approx(kendalltau(a_s, b_s).statistic, abs=1e-3)
    assert found["median_ratio"] == pytest.approx(np.median(b_s / a_s))
    assert (found["sampled"], found["run_on_both"], found["formats"]) == (200, 200, ["fp32", "int8"])
    assert f"{found['kendall_tau']:.3f}" in "\n".join(lines)


@pytest.mark.usefixtures("few")
def test_networks_that_one_device_cannot_run_are_left_out(
    device_profile: DeviceProfile, other_profile: DeviceProfile
) -> None:
    table = {
        layer: Measurement(error="no kernel") if layer.depthwise and layer.in_shape[0] == 8 else row
        for layer, row in other_profile.table.items()
    }
    found = compare_networks(device_profile, replace(other_profile, table=table), "digits-mbconv")
    assert 20 < found["run_on_both"] < 200
    assert 0 < found["kendall_tau"] < 1


def test_so_many_networks_are_ranked_by_default() -> None:
    assert NETWORKS == 2_000


def test_profiles_without_a_unit_in_common_are_refused(
    profile_file: Path, other_profile: DeviceProfile, tmp_path: Path, reporter: Reporter
) -> None:
    save_profile(replace(other_profile, table={}), tmp_path / "empty.json")
    with pytest.raises(TrilobitError, match=r"no measured unit in common.*the second has no units at all"):
        compare_profiles(profile_file, tmp_path / "empty.json", space=None, plot=None, reporter=reporter)


def test_a_space_that_the_profiles_do_not_cover_is_refused(
    profile_file: Path, other_profile: DeviceProfile, tmp_path: Path, reporter: Reporter
) -> None:
    part = {layer: row for layer, row in other_profile.table.items() if layer.kind == "conv"}
    save_profile(replace(other_profile, table=part), tmp_path / "part.json")
    with pytest.raises(TrilobitError, match=r"no first or no last layer.*leave --space out"):
        compare_profiles(
            profile_file,
            tmp_path / "part.json",
            space="digits-mbconv",
            plot=None,
            reporter=reporter,
        )
    with pytest.raises(TrilobitError, match=r"no row for .* made for another space"):
        compare_profiles(profile_file, profile_file, space="cifar-mbconv", plot=None, reporter=reporter)


def test_a_plot_of_an_unknown_kind_is_refused_before_anything_else(
    tmp_path: Path, reporter: Reporter
) -> None:
    with pytest.raises(TrilobitError, match=r"units\.png: a plot is written as one of \.html, \.svg"):
        compare_profiles(
            tmp_path / "a",
            tmp_path / "b",
            space=None,
            plot=tmp_path / "units.png",
            reporter=reporter,
        )
    assert not list(tmp_path.iterdir())


def test_the_drawing_has_a_mark_with_a_key_for_every_unit(
    profile_file: Path, other_file: Path, tmp_path: Path, reporter: Reporter
) -> None:
    path = tmp_path / "units.svg"
    document = compare_profiles(profile_file, other_file, space=None, plot=path, reporter=reporter)
    assert document["plot"] == str(path)
    root = ElementTree.fromstring(path.read_text())
    tips = {str(title.text).split("\n")[0] for title in root.iter(f"{SVG}title")}
    assert tips == set(document["ratios"])
    words = " ".join(str(text.text) for text in root.iter(f"{SVG}text"))
    assert "other-<cpu> (B) against made-up-cpu (A)" in words
    for mark in (*root.iter(f"{SVG}circle"),):
        assert 0 <= float(mark.attrib["cx"]) <= float(root.attrib["width"])
        assert 0 <= float(mark.attrib["cy"]) <= float(root.attrib["height"])


def test_the_page_needs_no_network_and_has_every_unit(
    profile_file: Path, other_file: Path, tmp_path: Path, reporter: Reporter
) -> None:
    path = tmp_path / "units.html"
    document = compare_profiles(profile_file, other_file, space=None, plot=path, reporter=reporter)
    page = re.sub(r"<script>/\*\*.*?</script>", "", path.read_text(), flags=re.S)
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)\s*=\s*[\"'](https?:)?//|@import|url\(", page)
    assert "other-&lt;cpu&gt;" in page
    drawn = re.search(r'<script type="application/json" id="figure">(.*?)</script>', page, flags=re.S)
    assert drawn
    traces = [trace for trace in json.loads(drawn[1])["data"] if trace["mode"] == "markers"]
    assert sum(len(trace["x"]) for trace in traces) == document["units"]["compared"]
    assert {"depthwise", "pointwise", "quantize"} <= {trace["name"] for trace in traces}
