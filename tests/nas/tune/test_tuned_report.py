"""The page about a tuned model."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.documents import write_document
from hw_profiles.errors import TrilobitError
from nas.report import write_report
from nas.tune.selection import pick
from tests.nas.tune.fronts import front, network


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
        "Recommended: abb, the best compromise: 1.43 times as fast as the original",
        "ONNX Runtime&#39;s defaults",
        "Non-zero status &lt;code&gt;",
        "no &lt;kernel&gt; for Sin",
        "Could be int8, which is not worth its cost here. int8 alone costs 0.002 nats of kl.",
        "No format would be faster here: int8 would cost 200 µs, conversions included.",
        "int8 would save 3.00 ms more and cost 0.01 nats of kl.",
        "99.70 % ± 1.00 %",
        "0.38 \N{MULTIPLICATION SIGN}",  # median of a quarter and a half
    ):
        assert text in page, text
    figures = json.loads(re.findall(r'id="figures">(.*?)</script>', page, flags=re.S)[0])
    assert set(figures) == {"quality-kl", "quality-agreement", "latency-agreement"}
    named = [note["text"] for note in figures["quality-agreement"]["layout"]["annotations"]]
    assert sorted(named) == ["ONNX Runtime's defaults", "the original in fp32"]
    assert figures["quality-kl"]["layout"]["yaxis"]["type"] == "log"
    assert "<b>" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_a_network_of_many_units_is_drawn_too(folder: Path) -> None:
    write_document(folder / "front.json", front(units=400))
    page = write_report(folder).read_text()
    assert page.count('<div class="cell choice"') == 3 * 200
    assert page.count("200 units that had a choice</summary>") == 3
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
