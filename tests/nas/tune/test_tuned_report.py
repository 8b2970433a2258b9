"""The page about a tuned model."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.documents import write_document
from hw_profiles.errors import TrilobitError
from nas.export.tuned_selection import compromise, pick
from nas.report import write_report
from nas.report.tuned_words import SPACE
from nas.run.tuned_document import ALL_INT8, MetricValue, PartQuality, Reference, TunedMetric, UnitShare
from tests.nas.tune.fronts import front, latency, network, quality


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run.toml").write_text('[model]\nsource = "mine.onnx"\n')
    write_document(tmp_path / "front.json", front())
    return tmp_path


def test_the_page_says_what_was_measured_and_why_units_are_as_they_are(folder: Path) -> None:
    techniques = [
        {"technique": "bias correction", "where": "/layer0", "format": "int8", "before": 0.4, "after": 0.1},
        {"technique": "bias correction", "where": "/layer2", "format": "int8", "before": 0.2, "after": 0.1},
    ]
    stored = {"schema": "quantization/1", "model": "", "tensors": {}, "parameters": [], "constants": []}
    text = json.dumps({**stored, "compensations": techniques}).encode()
    np.savez(folder / "quantization.npz", document=np.frombuffer(text, np.uint8))
    page = write_report(folder).read_text()
    for text in (
        "Recommended: abb, the best compromise of answers, latency and size: 1.43 times as fast",
        "ONNX Runtime&#39;s defaults",
        "Non-zero status &lt;code&gt;",
        "no &lt;kernel&gt; for Sin",
        "Could be int8, which is not worth its cost here. As the only one, int8 costs 0.002 nats of kl.",
        f"agreement 99.70{SPACE}±{SPACE}1.00{SPACE}% on 100 examples",
        f"ONNX Runtime&#39;s defaults: 0.91 times, kl 0.4{SPACE}±{SPACE}0.04{SPACE}nats",
        "0.38 \N{MULTIPLICATION SIGN}",  # median of a quarter and a half
    ):
        assert text in page, text
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', page, flags=re.S)[0])
    assert set(figures) == {"quality-kl", "quality-agreement", "latency-agreement"}
    named = [note["text"] for note in figures["quality-agreement"]["layout"]["annotations"]]
    assert sorted(named) == ["ONNX Runtime's defaults", "the original in fp32"]
    assert figures["quality-kl"]["layout"]["yaxis"]["type"] == "log"
    assert "<b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (
            UnitShare("int8", -2e-4, 0.0),
            "No format would be faster here: int8 would cost 200 µs, conversions",
        ),
        (UnitShare("fp16", -1e-8, 0.0), "No format would be faster here. As the only one"),
        (UnitShare("int8", 3e-3, 0.01), "int8 would save 3.00 ms more and cost 0.01 nats of kl."),
    ],
)
def test_why_a_unit_stayed_in_fp32_is_said(folder: Path, left: UnitShare, said: str) -> None:
    files = [network("abb", ["/layer0"], 0.7, 0.003, {"/layer2": left}), network("ccc", (), 1.0, 0.0)]
    write_document(folder / "front.json", front(candidates=files))
    assert said in write_report(folder).read_text()


def test_what_is_recommended_is_what_knee_picks(folder: Path) -> None:
    """Also where the fastest file is the best compromise, or the original is."""
    original = network("ccc", (), 1.0, 0.0)
    for files, words in (
        ([network("aaa", ["/layer0", "/layer2"], 0.6, 0.001), original], "Recommended: aaa"),
        (
            [network("aaa", (), 1.0, 0.0), network("bbb", ["/layer0"], 1.1, 0.5)],
            "The fastest of the other files, bbb: 0.91 times as fast as the original",
        ),
    ):
        tuned = front(candidates=files)
        write_document(folder / "front.json", tuned)
        page = write_report(folder).read_text()
        assert words in page
        assert compromise(tuned) == pick(tuned, ["knee"])[0]


def test_a_prepared_file_in_fp32_is_one_to_take(folder: Path) -> None:
    prepared = replace(network("fff", (), 0.7, 0.0), size_bytes=9e5)
    write_document(folder / "front.json", front(candidates=[network("aaa", ["/layer0"], 0.6, 0.1), prepared]))
    page = write_report(folder).read_text()
    assert "The best answers, fff: 1.43 times, kl 0" in page
    assert "best left as it is" not in page


def test_the_best_compromise_is_no_worse_than_everything_in_int8(folder: Path) -> None:
    files = [
        network("aaa", ["/layer0", "/layer2"], 0.5, 0.2),
        network("bbb", ["/layer0"], 0.9, 0.01),
        network("ccc", (), 1.0, 0.0),
    ]
    tuned = front(candidates=files)
    assert compromise(tuned).id == "aaa"
    int8 = Reference(ALL_INT8, "all int8 by us", 1e5, latency(0.5), quality(0.1), quality(0.1))
    compared = replace(tuned, references=(*tuned.references, int8))
    assert compromise(compared).id == "bbb"
    assert [entry.id for entry in pick(compared, ["knee"])] == ["bbb"]


def test_metrics_in_which_more_is_better_are_said_as_such(folder: Path) -> None:
    """Of a front without class scores, single units are compared by the noise that they add."""
    tuned = front()
    snr = TunedMetric("snr", "dB", "max", "signal-to-noise ratio")
    values = PartQuality(10, {"snr": MetricValue(31.4)})
    files = [replace(file, choosing=values, judging=values) for file in tuned.candidates]
    bare = [replace(each, choosing=values, judging=values) for each in (tuned.original, *tuned.references)]
    document = replace(
        tuned,
        metrics=(snr,),
        candidates=tuple(files),
        evaluated=(),
        original=bare[0],
        references=tuple(bare[1:]),
    )
    write_document(folder / "front.json", document)
    page = write_report(folder).read_text()
    assert "As the only one, int8 leaves 0.002 dB of snr." in page
    assert "% noise" in page
    assert "nats" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_a_network_of_many_units_is_drawn_too(folder: Path) -> None:
    write_document(folder / "front.json", front(units=400))
    page = write_report(folder).read_text()
    assert page.count('<div class="cell choice"') == 2 * 200
    assert page.count("200 units that had a choice</summary>") == 2
    assert '<details class="card" >' in page  # closed


def test_a_front_of_the_original_alone_says_so(folder: Path) -> None:
    write_document(folder / "front.json", front(candidates=[network("ccc", (), 1.0, 0.0)]))
    assert "it is best left as it is" in write_report(folder).read_text()


def test_picks_are_understood_or_refused_in_one_line() -> None:
    tuned = front()
    chosen = {
        choice: [entry.id for entry in pick(tuned, [choice])]
        for choice in ("all", "knee", "fastest>=99%", "best<=15ms", "best<=75%", "ab", "ccc")
    }
    assert chosen == {
        "all": ["aaa", "abb", "ccc"],
        "knee": ["abb"],
        "fastest>=99%": ["abb"],
        "best<=15ms": ["abb"],
        "best<=75%": ["abb"],
        "ab": ["abb"],
        "ccc": ["ccc"],
    }
    assert [entry.id for entry in pick(tuned, [])] == ["aaa", "abb", "ccc"]
    assert len(pick(tuned, [], 2)) == 2
    for choice, complaint in (
        ("a", "several files begin so"),
        ("zzz", "on the front are aaa, abb, ccc"),
        ("best<=1ms", "the nearest has 12 ms"),
        ("fastest>=100.1%", "at most 100%"),
        ("fast", "write knee"),
    ):
        with pytest.raises(TrilobitError, match=complaint):
            pick(tuned, [choice])
