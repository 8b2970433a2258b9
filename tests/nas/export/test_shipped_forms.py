"""Files that take pixels or any number of images, the answers a network must give, its card and its zip."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from hw_profiles.runtimes.ort.runtime import INTEGER_OPS, open_exactly, optimised_ops
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact, single_output
from nas.checks.check import IMAGES, Input, agreement, made_up_images
from nas.checks.expected import expected_answers
from nas.checks.parity import open_file, takes_pixels
from nas.emit.to_onnx import Normalisation, described, emit, random_network
from nas.export.card import model_card
from nas.export.package import network_files
from nas.export.written import replace_written
from supernet.data.images import Images
from supernet.data.pixels import normalised, resized, to_tensor
from supernet.families.family import Family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.loading import load_images
from tests.nas.exported import claims, latency, manifest

MEAN, STD = (0.3091,), (0.3488,)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def network(family: Family, request: pytest.FixtureRequest) -> QuantizedGraph:
    work = family.workload(family.extremes()[f"smallest/{request.param}"])
    return random_network(work, rng=np.random.default_rng(0))


def image_of(network: QuantizedGraph, *, pixels: bool = False) -> Input:
    c, h, w = network.workload.in_shape
    return Input((h, w, c), MEAN, STD, pixels)


def test_pixels_are_normalised_as_in_training(family: Family) -> None:
    data = load_images("digits", seed=0)
    size = data.test.pixels.shape[1]
    image = Input((size, size, 1), data.mean, data.std)
    wanted = data.inputs(data.test[:7], size).contiguous().numpy()
    np.testing.assert_array_equal(image.normalised(data.test.pixels[:7]), wanted)


def test_a_file_that_takes_pixels_gives_the_same_bits(network: QuantizedGraph) -> None:
    image = image_of(network)
    pixels = made_up_images(5, image.shape)
    plain = open_file(emit(network))
    seeing = open_file(emit(network, batch=None, pixels=Normalisation(MEAN, STD)))
    assert takes_pixels(seeing)
    assert not takes_pixels(plain)
    seen, read = single_output(seeing, pixels), single_output(plain, image.normalised(pixels))
    np.testing.assert_array_equal(seen, read)


def test_a_file_for_any_number_of_images_runs_each_as_alone(network: QuantizedGraph) -> None:
    x = image_of(network).normalised(made_up_images(5, image_of(network).shape))
    session = open_exactly(emit(network, batch=None))
    assert session.get_inputs()[0].shape[0] == "batch"
    alone = np.concatenate([session.run(None, {"image": one[None]})[0] for one in x])
    np.testing.assert_array_equal(session.run(None, {"image": x})[0], alone)
    assert open_file(emit(network, batch=None)).timed("wall", batch=3)(1) > 0


def test_made_up_images_never_change() -> None:
    """Manifests hold answers to them: other bits would make every exported network look broken."""
    images = made_up_images(3, (6, 6, 3))
    assert images[2, 5, [0, 5]].tolist() == [[241, 55, 12], [5, 210, 105]]
    assert (images[:, :4, :4] == images[:, :1, :1]).all()
    many = made_up_images(IMAGES, (8, 8, 1)).reshape(IMAGES, -1)
    assert len(np.unique(many, axis=0)) == IMAGES


def test_every_form_of_a_file_runs_the_same_integer_kernels(network: QuantizedGraph) -> None:
    """A manifest counts those of the plain file; `nas verify` counts the shipped one's."""
    pixels, plain = Normalisation(MEAN, STD), optimised_ops(emit(network))
    for form in (emit(network, batch=None), emit(network, batch=None, pixels=pixels)):
        assert [optimised_ops(form)[op] for op in INTEGER_OPS] == [plain[op] for op in INTEGER_OPS]


def test_a_file_gives_the_answers_of_the_simulation(network: QuantizedGraph) -> None:
    image = image_of(network)
    answers = expected_answers(network, image)
    session = open_file(emit(network))
    share, difference = agreement(
        single_output(session, image.normalised(made_up_images(IMAGES, image.shape))), answers
    )
    assert share >= 0.995
    assert difference < 0.1
    other = random_network(network.workload, rng=np.random.default_rng(9))
    logits = single_output(open_file(emit(other)), image.normalised(made_up_images(IMAGES, image.shape)))
    assert agreement(logits, answers)[0] < 0.9
    assert torch.tensor(answers.labels).shape == (IMAGES,)


def test_more_metadata_changes_nothing_else(network: QuantizedGraph) -> None:
    model = emit(network, metadata={"a": "1"})
    found = onnx.load_from_string(described(model, {"b": "2"}))
    assert {prop.key: prop.value for prop in found.metadata_props} == {"a": "1", "b": "2"}
    assert found.graph == onnx.load_from_string(model).graph


def shown(*, pixels: bool = False, **more: Any) -> str:
    """The card of a manifest."""
    parts: dict[str, Any] = {
        "policy": {"stem": "fp32", "head": "int8", "classifier": "int8"},
        "classes": [str(i) for i in range(25)],
        "input": Input((8, 8, 1), MEAN, STD, pixels).to_json(),
        "finetuning": {"epochs": 3, "kept": False},
        "latency": latency(1e-4, ratios={"same/fp32": 0.5, "mobilenet-v2/int8": None}),
    }
    return model_card(manifest(**{**parts, **more}))


@pytest.mark.parametrize("pixels", [False, True])
def test_the_card_says_what_a_user_needs(pixels: bool) -> None:
    card = shown(pixels=pixels)
    said = ("90.00% of 359", "100 us", "the same network in fp32 | 0.50 x", "2 in int8", "3 epochs, not kept")
    assert all(one in card for one in said), card
    assert ("uint8 pixels" in card) == pixels
    assert "MobileNetV2" not in card  # it could not be measured
    assert "0, 1, 2" in card
    assert "24" not in card.split("## Use")[0].split("classes")[1]  # only the first are listed


@pytest.mark.parametrize(
    "more",
    [{}, {"test_accuracy": 0.91, "latency": {"median_s": 5e-5, "iqr_s": 1e-6, "cpu": "a CPU"}}],
)
def test_the_card_says_what_is_known_of_a_library(more: dict[str, Any]) -> None:
    card = shown(library={"target": "llvm -mcpu=x", "integer_only": True, **more})
    assert "for llvm -mcpu=x, weights inside, integer-only" in card
    assert ("; test accuracy 91.00%, 50 us on a CPU. It needs" in " ".join(card.split())) == bool(more)


HOSTILE = ("<script>alert(1)</script>", "a | b", "[x](http://y)", "# c\n\n- d", "`e", "![f](g)", "x" * 10_000)


def test_names_on_a_card_are_only_names() -> None:
    device = {**manifest().device.to_json(), "cpu": "<b>CPU</b>"}
    card = shown(classes=HOSTILE, data="imagefolder:<i>/x|y", device=device, versions={"<u>": "|"})
    assert "<" not in card
    assert not re.search(r"(?<!\\)\[x|(?<!\\)`e|(?<!\\)!\[", card)
    assert max(len(line) for line in card.splitlines()) < 1000
    plain = shown()
    assert len(card.splitlines()) == len(plain.splitlines())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("pixels", [False, True])
def test_the_code_on_the_card_gives_what_was_measured(
    pixels: bool, exact: bool, network: QuantizedGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an image file of another size on."""
    c, h, w = network.workload.in_shape
    needed = {"integer_sums": "exact"} if exact else {}
    card = shown(input=Input((h, w, c), MEAN, STD, pixels).to_json(), requires=needed)
    model = emit(network, pixels=Normalisation(MEAN, STD) if pixels else None)
    (tmp_path / "model.onnx").write_bytes(model)
    photograph = made_up_images(1, (2 * h + 1, 3 * w, c))
    Image.fromarray(photograph[0, :, :, 0] if c == 1 else photograph[0]).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    code = card.split("```python\n")[1].split("```")[0]
    assert ("session.x64quantprecision" in code) is exact
    assert "disabled_optimizers" not in code
    names: dict[str, Any] = {}
    exec(code, names)
    images = Images(photograph, np.zeros(1, np.int64))
    seen = resized(images, h) if pixels else normalised(to_tensor(images), MEAN, STD, h).contiguous().numpy()
    session = host_runtime().compile(Artifact(model, exact_sums=exact))
    np.testing.assert_allclose(names["logits"], single_output(session, seen), atol=1e-4)


def packed(network: QuantizedGraph, **files: bytes) -> dict[str, bytes]:
    return network_files("abc123", {"model.onnx": emit(network), **files}, claims())


def test_the_zip_holds_the_folder(network: QuantizedGraph, tmp_path: Path) -> None:
    files = packed(network, **{"model.so": b"code"})
    assert not replace_written(tmp_path, files)
    assert json.loads((tmp_path / "abc123" / "manifest.json").read_text())["files"].keys() == {
        *("model.onnx", "model.so", "README.md")
    }
    with zipfile.ZipFile(tmp_path / "abc123.zip") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert held == {f"abc123/{file.name}": file.read_bytes() for file in (tmp_path / "abc123").iterdir()}
    assert packed(network, **{"model.so": b"code"}) == files


@pytest.mark.parametrize(
    ("mean", "std"), [(1e308, 0.2), (-1e308, 0.2), (0.5, 1e308), (0.5, 1e-308), (0.5, -1)]
)
def test_an_input_that_float32_cannot_normalise_is_refused(mean: float, std: float) -> None:
    with pytest.raises(ValueError, match="its means must be within"):
        Input((8, 8, 1), (mean,), (std,))
