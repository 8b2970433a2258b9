"""Published networks that fronts are compared with: they are what was published, by their multiply-adds."""

import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ROUNDED = 0.006  # million multiply-adds, as published


@pytest.fixture
def rulers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import rulers

    return rulers


def multiply_adds(net: nn.Module) -> float:
    """Count convolutions and the classifier of one image, in millions."""
    counted = Counter[str]()

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(module.weight, torch.Tensor)
        counted["macs"] += module.weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1)

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        logits = net.eval()(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 10)
    return counted["macs"] / 1e6


def test_they_have_the_published_multiply_adds(rulers: Any) -> None:
    for name, ruler in rulers.RULERS.items():
        if ruler.macs is not None:
            linear = 1280 * 10 / 1e6 * (1 - ruler.deployed)  # which has no second form
            counted = multiply_adds(ruler.build())
            assert counted == pytest.approx(ruler.macs * ruler.deployed + linear, abs=ROUNDED), name


def test_the_smallest_is_mlperf_tinys(rulers: Any) -> None:
    """Its convolutions: 12.5 million multiply-adds and 78 thousand weights (a file of 96 KB in int8)."""
    net = rulers.RULERS["MLPerf Tiny ResNet-8"].build()
    assert multiply_adds(net) == pytest.approx(12.5, abs=0.05)
    assert sum(p.numel() for p in net.parameters() if p.ndim > 1) == pytest.approx(78e3, rel=0.01)


@pytest.fixture
def points(rulers: Any) -> Any:
    import ruler_points

    return ruler_points


def test_a_plot_gets_published_accuracy_beside_measured_latency(points: Any, tmp_path: Path) -> None:
    rows = [
        {"task": name, "metric": f"latency, {fmt}", "ours": latency_us, "peers": {}}
        for name, fmt, latency_us in (
            ("ResNet-20", "fp32", 900.0),
            ("ResNet-20", "int8", 500.0),
            ("RepVGG-A0", "fp32", 800.0),
            ("cifar-pooled largest", "fp32", 1.0),
        )
    ]
    path = tmp_path / "rulers.json"
    path.write_text(json.dumps({"schema": "benchmark/1", "benchmark": "rulers", "rows": rows}))
    vgg, resnet = points.ruler_points(path)
    assert (resnet.name, resnet.published_accuracy) == ("ResNet-20", 0.926)
    assert resnet.measured_latency_s == pytest.approx({"fp32": 9e-4, "int8": 5e-4})
    assert vgg.name == "RepVGG-A0"
    assert "chenyaofo" in vgg.source
    path.write_text(json.dumps({"schema": "benchmark/1", "benchmark": "tune", "rows": []}))
    with pytest.raises(ValueError, match="holds no rulers; write it with"):
        points.ruler_points(path)


def test_a_plot_gets_networks_of_ours_with_what_the_images_leave_open(points: Any, tmp_path: Path) -> None:
    said = {points.ACCURACY: 90.0, points.IMAGES: 10_000.0}
    rows = [
        {"task": "front on ONNX Runtime: b", "metric": "latency, mixed", "ours": 300.0, "peers": said},
        {"task": "trained alone: resnet8-x1", "metric": "latency, int8", "ours": 130.0, "peers": said},
        {"task": "ResNet-20", "metric": "latency, int8", "ours": 1.0, "peers": {"int8: ours": 1.0}},
    ]
    path = tmp_path / "rulers.json"
    path.write_text(json.dumps({"schema": "benchmark/1", "benchmark": "rulers", "rows": rows}))
    alone, front = points.trained_points(path)
    assert (front.group, front.name, front.formats) == ("front on ONNX Runtime", "b", "mixed")
    assert front.latency_s == pytest.approx(3e-4)
    assert front.standard_error == pytest.approx(0.003)
    assert (alone.group, alone.name, alone.accuracy) == ("trained alone", "resnet8-x1", 0.9)


def test_what_is_printed_beside_them_is_what_was_published(rulers: Any) -> None:
    """The words of docs/benchmarks.md are typed by hand."""
    listed = tomllib.loads((BENCHMARKS / "headlines.toml").read_text())["rulers"]
    words = {line["task"]: line["words"] for line in listed}
    for name, ruler in rulers.RULERS.items():
        assert f"(published: {ruler.accuracy:.2%})".replace("%", " %") in words[name]
