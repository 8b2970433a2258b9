"""The report reads only the run folder, says what is missing, and never mixes predicted with measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hw_profiles.errors import TrilobitError
from hw_profiles.files import read_json, write_json
from hw_profiles.graph.layer import Layer, map_layer, parse_key
from nas.evaluation.on_device import FAILED_S
from nas.export.manifest import SCHEMA
from nas.report import write_report
from nas.report.device_figures import speedup_plot, speedups
from nas.report.drawing import blocks, format_shares, layer_kind, widest_of
from nas.report.front_figures import best_line, front_plot, measured
from nas.report.page import _front_rows
from nas.report.run_files import Network, Value, read_run
from nas.report.search_figures import agreement_plot
from nas.report.units import scale_for, text


def page_of(run: Path) -> str:
    """The page without the plotly library."""
    before, _, after = write_report(run).read_text().partition("<script>/**")
    return before + after.partition("</script>")[2]


def figures_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, flags=re.S)
    assert match
    return dict(json.loads(match[1]))


def test_report_is_one_file_in_the_run_folder(run_folder: Path) -> None:
    before = {
        path: path.read_bytes()
        for path in run_folder.rglob("*")
        if path.name != "report.html" and path.is_file()
    }
    assert write_report(run_folder) == run_folder / "report.html"
    after = {
        path: path.read_bytes()
        for path in run_folder.rglob("*")
        if path.name != "report.html" and path.is_file()
    }
    assert after == before


def test_finished_run_has_every_plot(run_folder: Path) -> None:
    page = page_of(run_folder)
    figures = figures_of(page)
    assert set(figures) == {
        "front",
        "agreement-latency",
        "agreement-accuracy",
        "speedups",
        "calibration",
        "hypervolume",
        "timings",
        "learning",
        "coverage",
    }
    for name in figures:
        assert f'<div id="{name}"' in page
    assert "produces it" not in page


def test_the_verdict_on_the_profile_is_in_the_report(run_folder: Path) -> None:
    assert re.search(r"trust: (good|fair|poor), because ", write_report(run_folder).read_text())


def test_page_names_nothing_to_fetch(run_folder: Path) -> None:
    page = page_of(run_folder)
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)\s*=\s*[\"'](https?:)?//|@import|url\(", page)


def test_the_headline_recommends_the_knee_of_the_exported_networks(run_folder: Path) -> None:
    exports = read_run(run_folder).exports
    best = max(e.accuracy for e in exports)
    headline = re.search(r'<p class="headline">(.*?)</p>', page_of(run_folder), flags=re.S)
    assert headline
    said = headline[1]
    match = re.match(r"Recommended: (\w+), (?:the knee|the most accurate)", said)
    assert match
    chosen = next(export for export in exports if export.id == match[1])
    assert f"{100 * chosen.accuracy:.1f} % in {text('latency', chosen.latency.value)} on test images" in said
    assert chosen.reference_s
    assert f"{chosen.reference_s / chosen.latency.value:.1f} times faster than the largest network" in said
    assert f"has {100 * best:.1f} %" in said or chosen.accuracy == best
    assert ("the front has no knee" in said) == (chosen.accuracy == best)


def test_without_a_knee_the_most_accurate_is_recommended(own_run: Path) -> None:
    for place, path in enumerate(sorted(own_run.glob("export/*/manifest.json"))):
        manifest = read_json(path, SCHEMA)
        accuracy, median_s = [(0.485, 7.6e-5), (0.301, 3.8e-5), (0.259, 1.1e-5)][min(place, 2)]
        manifest["accuracy"]["test"], manifest["latency"]["median_s"] = accuracy, median_s
        write_json(path, manifest)
    page = page_of(own_run)
    assert "the most accurate, as the front has no knee" in page
    assert "48.5 % in 76.0 µs on test images" in page
    assert "has 25.9 % in 11.0 µs" in page


def test_a_network_that_saves_a_lot_for_little_is_recommended_over_the_largest(own_run: Path) -> None:
    for place, path in enumerate(sorted(own_run.glob("export/*/manifest.json"))):
        manifest = read_json(path, SCHEMA)
        accuracy, median_s = [(0.908, 1e-4), (0.905, 3.8e-5), (0.61, 3.4e-5)][min(place, 2)]
        manifest["accuracy"]["test"], manifest["latency"]["median_s"] = accuracy, median_s
        manifest["latency"]["references_s"]["largest/fp32"] = 1e-4
        write_json(path, manifest)
    page = page_of(own_run)
    assert "90.5 % in 38.0 µs on test images, 2.6 times faster than the largest network in fp32" in page
    assert "has 90.8 % in 100 µs" in page


def recorded(run: Path) -> Path:
    """The same run, as if its device was a recorded profile."""
    config = (run / "run.toml").read_text()
    (run / "run.toml").write_text(
        config.replace('name = "made-up-cpu"', 'name = "recorded:made-up-cpu.json"')
    )
    return run


def test_nothing_is_called_measured_that_was_replayed(own_run: Path) -> None:
    page = page_of(recorded(own_run))
    figures = figures_of(page)
    assert "agreement-latency" not in figures
    assert "agreement-accuracy" in figures
    names = {trace.get("name") for trace in figures["front"]["data"]}
    assert {"front, replayed", "others, replayed"} <= names
    assert not {"front, measured", "others, measured"} & names
    assert "Latencies are replayed: looked up in a profile that was recorded elsewhere" in page
    assert "Latency, replayed" in page
    assert "on the target device" not in page
    assert "single layers measured on" not in page


def test_a_measured_run_needs_no_caveat(run_folder: Path) -> None:
    page = page_of(run_folder)
    assert "Measured through the exported file on the target device" in page
    assert 'class="caveat"' not in page


def timeless(run: Path) -> Path:
    """The same run, as if its device had no times: memory was counted in their place."""
    memory = {"arena": 46_000.0, "flash": 157_000.0}
    [profile] = (run / "profiles").glob("*.json")
    document = json.loads(profile.read_text())
    document["device"]["figures"] = "none"
    del document["checksum"]
    write_json(profile, document)
    front = read_json(run / "front.json", "front/1")
    for entry in (*front["candidates"], *front["evaluated"]):
        if entry["measured"]:
            del entry["measured"]["latency"]
            entry["measured"] |= {name: {"value": value} for name, value in memory.items()}
    front["objectives"][1] = {"name": "arena", "unit": "bytes", "direction": "min", "bound": None}
    write_json(run / "front.json", front)
    for path in run.glob("export/*/manifest.json"):
        write_json(path, {**read_json(path, SCHEMA), "latency": None, "memory": memory})
    return run


def test_a_device_without_times_has_no_word_of_times(own_run: Path) -> None:
    page = page_of(timeless(own_run))
    body = page[page.index('<p class="headline">') :]
    assert "Arena and flash were counted" in body
    assert "<th>Arena</th><th>Flash</th>" in body
    assert not re.findall(r"IQR|interquartile|runnable tasks|Latenc|Speed-up", body)


@pytest.mark.parametrize(
    ("foreseen", "words"), [(True, "from before"), (False, "learned from the network itself")]
)
def test_accuracies_say_from_when_their_predictions_are(own_run: Path, foreseen: bool, words: str) -> None:
    front = read_json(own_run / "front.json", "front/1")
    write_json(own_run / "front.json", {**front, "foreseen": foreseen})
    run = read_run(own_run)
    plot = agreement_plot(run, "accuracy")
    assert plot
    assert words in plot.caption
    assert words in front_plot(run).caption


def test_traces_are_either_measured_or_predicted(run_folder: Path) -> None:
    run = read_run(run_folder)
    plot = front_plot(run)
    named = {trace["name"]: trace for trace in plot.figure["data"] if "name" in trace}
    assert set(named) == {"others, predicted", "others, measured", "front, predicted", "front, measured"}
    scale = scale_for("latency", [9e-5])
    expected = [scale(network.measured["latency"].value) for network in run.candidates]
    assert named["front, measured"]["x"] == pytest.approx(expected)
    known = sum(bool(network.measured) for network in run.evaluated)
    assert len(named["others, measured"]["x"]) == known
    assert len(named["others, predicted"]["x"]) == len(run.evaluated) - known


def test_best_line_is_increasing(run_folder: Path) -> None:
    run = read_run(run_folder)
    line = best_line(
        [n for n in (*run.candidates, *run.evaluated) if n.measured], measured, "latency", "accuracy"
    )
    pairs = [(n.measured["latency"].value, n.measured["accuracy"].value) for n in line]
    assert pairs == sorted(pairs)
    assert [accuracy for _, accuracy in pairs] == sorted(accuracy for _, accuracy in pairs)


def test_constraint_and_reference_are_drawn(run_folder: Path) -> None:
    plot = front_plot(read_run(run_folder))
    texts = " ".join(note["text"] for note in plot.figure["layout"]["annotations"])
    assert "limit 90.0 µs" in texts
    assert "reference" in texts
    assert len(plot.figure["layout"]["shapes"]) == 2


def test_reference_network_is_drawn_as_a_point(own_run: Path) -> None:
    front = read_json(own_run / "front.json", "front/1")
    write_json(own_run / "front.json", {**front, "reference": front["candidates"][-1]})
    names = [trace.get("name") for trace in front_plot(read_run(own_run)).figure["data"]]
    assert "reference, measured" in names


def test_a_reference_that_the_device_cannot_run_has_no_place_in_any_plot(own_run: Path) -> None:
    front = read_json(own_run / "front.json", "front/1")
    entry = front["candidates"][-1]
    failed = {**entry["measured"], "latency": {"value": FAILED_S, "iqr": 0.0}}
    write_json(own_run / "front.json", {**front, "reference": {**entry, "measured": failed}})
    drawn = [trace for trace in front_plot(read_run(own_run)).figure["data"] if trace.get("x")]
    assert max(x for trace in drawn for x in trace["x"] if isinstance(x, float)) < 1e6
    assert "e+308" not in page_of(own_run)


def test_speedups_pair_layers_that_differ_in_format_only(run_folder: Path) -> None:
    profile = read_run(run_folder).profile
    assert profile
    pairs = speedups(profile)
    assert len(pairs) > 50
    for pair in pairs:
        plain = parse_key(pair.layer.key().replace("int8", "fp32"))
        assert pair.fp32_s == profile.table[plain].median_s
        assert pair.low_s == profile.table[pair.layer].median_s
    plot = speedup_plot(profile)
    assert plot
    slower = sum(pair.ratio < 1 for pair in pairs)
    assert f"{slower} of {len(pairs)} get slower" in plot.caption


def test_agreement_of_perfect_predictions(own_run: Path) -> None:
    front = read_json(own_run / "front.json", "front/1")
    exact = [{**entry, "measured": entry["predicted"]} for entry in front["candidates"]]
    write_json(own_run / "front.json", {**front, "candidates": exact, "evaluated": []})
    plot = agreement_plot(read_run(own_run), "latency")
    assert plot
    assert plot.title == "Predicted against measured latency: MAPE 0.0 %, Kendall τ 1.00"


def test_drawing_has_one_column_per_layer(run_folder: Path) -> None:
    for network in read_run(run_folder).candidates:
        drawn = blocks(network, widest=widest_of([network]))
        columns = [column for block in drawn for column in block.columns]
        assert len(columns) == len(network.layers)
        assert max(column.height for column in columns) == 1
        assert len({block.name for block in drawn}) == len(drawn)  # no block is torn apart by a conversion
        assert drawn[0].name == "stem"
        low = sum(value == "int8" for value in network.policy.values()) / len(network.policy)
        assert format_shares(network) == (f"{100 * low:.0f} % int8 layers" if low else "all layers fp32")


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (map_layer("stem", (3, 8, 8), 8, 3, 2), "stem"),
        (map_layer("conv", (8, 8, 8), 16), "1\N{MULTIPLICATION SIGN}1"),
        (map_layer("conv", (8, 8, 8), 8, 5, 1, 8), "depthwise 5\N{MULTIPLICATION SIGN}5"),
        (map_layer("pool", (8, 8, 8), 8), "pool"),
        (map_layer("mbconv", (8, 8, 8), 8, 3, expanded=24), "block 3\N{MULTIPLICATION SIGN}3"),
    ],
)
def test_kinds_of_layers(layer: Layer, kind: str) -> None:
    assert layer_kind(layer) == kind


# -- what is not there ---------------------------------------------------------------------------------


def test_empty_run_says_which_commands_are_next(empty_run: Path) -> None:
    page = page_of(empty_run)
    for command in ("nas profile", "nas fit", "nas search", "nas export", "nas run"):
        assert f"<code>{command}</code> produces it" in page
    assert "No network of this run has been measured yet." in page
    assert figures_of(page) == {}
    # the library that draws plots is in pages with plots alone
    assert (empty_run / "report.html").stat().st_size < 100_000


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("front.json", "nas search"),
        ("quality.json", "nas fit"),
        ("timings.json", "nas run"),
        ("profiles/made-up-cpu.json", "nas profile"),
        ("env.json", None),
    ],
)
def test_any_file_may_be_missing(own_run: Path, missing: str, command: str | None) -> None:
    (own_run / missing).unlink()
    page = page_of(own_run)
    assert (f"<code>{command}</code> produces it" in page) == (command is not None)


def test_unmeasured_front_is_called_a_prediction(own_run: Path) -> None:
    front = read_json(own_run / "front.json", "front/1")
    for entry in (*front["candidates"], *front["evaluated"]):
        entry["measured"] = {}
    write_json(own_run / "front.json", front)
    for manifest in own_run.glob("export/*/manifest.json"):
        manifest.unlink()
    page = page_of(own_run)
    assert "every point is a prediction" in page
    assert "No network of this run has been measured yet." in page
    names = [trace["name"] for trace in figures_of(page)["front"]["data"]]
    assert names == ["others, predicted", "front, predicted"]


def test_front_without_exports_is_told_on_validation_images(own_run: Path) -> None:
    for manifest in own_run.glob("export/*/manifest.json"):
        manifest.unlink()
    page = page_of(own_run)
    assert "on validation images" in page
    assert "<code>nas export</code> produces it" in page
    assert "Best balance: " in page


def test_names_are_escaped(own_run: Path) -> None:
    front = read_json(own_run / "front.json", "front/1")
    front["space"]["name"] = front["candidates"][0]["layers"][0]["name"] = "<script>alert(1)</script>"
    write_json(own_run / "front.json", front)
    assert "<script>alert(1)" not in page_of(own_run)


def test_an_id_that_is_no_name_of_a_folder_is_refused(own_run: Path) -> None:
    front = read_json(own_run / "front.json", "front/1")
    front["candidates"][0]["id"] = "../../elsewhere"
    write_json(own_run / "front.json", front)
    with pytest.raises(TrilobitError, match=r"front\.json: candidates\[0\]\.id: an id is letters and digits"):
        write_report(own_run)


def test_a_report_holds_no_password(own_run: Path) -> None:
    config = (own_run / "run.toml").read_text()
    url = 'url = "postgresql://me:SECRET@host/runs"'
    (own_run / "run.toml").write_text(f"{config}\n[storage]\n{url}\n")
    assert "SECRET" not in page_of(own_run)


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match=r"run.toml: no such file; .* `nas run` makes"):
        write_report(tmp_path)
    (tmp_path / "run.toml").write_text("data = ")
    with pytest.raises(TrilobitError, match="not valid TOML"):
        write_report(tmp_path)


def test_broken_file_leaves_the_old_report(own_run: Path) -> None:
    old = write_report(own_run).read_bytes()
    (own_run / "front.json").write_text('{"schema": "front/1", "cand')
    with pytest.raises(TrilobitError, match="not whole JSON"):
        write_report(own_run)
    assert (own_run / "report.html").read_bytes() == old


def test_memory_stands_beside_size_and_may_be_missing(own_run: Path) -> None:
    manifest = next((own_run / "export").glob("*/manifest.json"))
    document = read_json(manifest, SCHEMA)
    shown = text("memory", document["predicted"]["memory"]["value"])
    assert f"<td>{shown}</td>" in page_of(own_run)
    del document["predicted"]["memory"]  # as older versions wrote it
    write_json(manifest, document)
    old = next(export for export in read_run(own_run).exports if export.id == document["id"])
    assert old.memory_bytes is None
    assert "<th>Memory</th>" in page_of(own_run)


def test_what_a_user_feels_stands_beside_accuracy_and_may_be_missing(own_run: Path) -> None:
    page = page_of(own_run)
    for heading, value in {
        "Negative flips": "1.25 %",
        "Same as the reference": "97.0 %",
        "Worst class": "88.5 %",
    }.items():
        assert f"<th>{heading}</th>" in page
        assert f"<td>{value}</td>" in page
    for manifest in own_run.glob("export/*/manifest.json"):
        document = read_json(manifest, SCHEMA)
        del document["quality"]  # as older versions wrote it
        write_json(manifest, document)
    assert "Negative flips" not in page_of(own_run)


def test_a_measured_latency_stands_with_its_spread_and_the_load() -> None:
    known = {"latency": Value(2.5e-5, 1e-6, 12.3)}
    columns = {"measured": ("latency",), "predicted": ("latency",)}
    network = Network("a", {}, {}, (), predicted={"latency": Value(2e-5)}, measured=known)
    (shown,) = _front_rows([network], columns)
    assert shown["measured latency"] == f"{text('latency', 2.5e-5)}, IQR {text('latency', 1e-6)}, load 12.3"
    assert shown["predicted latency"] == text("latency", 2e-5)


def test_a_column_has_one_unit() -> None:
    def network(latency_s: float, iqr_s: float) -> Network:
        measured = {"latency": Value(latency_s, iqr_s)}
        return Network(f"{latency_s}", {}, {}, (), predicted={}, measured=measured)

    rows = _front_rows(
        [network(9e-5, 1e-6), network(2e-4, 3e-6), network(1.5e-3, 1.1e-3)], {"measured": ("latency",)}
    )
    assert [row["measured latency"] for row in rows] == [
        "90.0 µs, IQR 1.00 µs",
        "200 µs, IQR 3.00 µs",
        "1500 µs, IQR 1100 µs",
    ]
