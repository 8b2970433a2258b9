"""Files that take pixels or any number of images, the answers a network must give, its card and its zip."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from hw_profiles.backends.ort import outputs, prepared, takes_bytes
from nas.export.card import model_card
from nas.export.check import IMAGES, Input, agreement, expected_answers, made_up_images
from nas.export.package import archive_of, file_entries, remove_network, write_network
from nas.export.sums import open_exactly
from nas.export.to_onnx import Normalisation, described, emit, random_network
from supernet.family import Family
from supernet.network import Network
from supernet.train.data import load_data, to_batch

MEAN, STD = (0.3091,), (0.3488,)


@pytest.fixture(scope="module", params=["fp32", "int8"])
def network(family: Family, request: pytest.FixtureRequest) -> Network:
    work = family.workload(family.corners()[f"smallest/{request.param}"])
    return random_network(work, rng=np.random.default_rng(0))


def image_of(network: Network, *, pixels: bool = False) -> Input:
    c, h, w = network.workload.in_shape
    return Input((h, w, c), MEAN, STD, pixels)


def test_pixels_are_normalised_as_in_training(family: Family) -> None:
    data = load_data("digits", seed=0)
    size = data.test.pixels.shape[1]
    image = Input((size, size, 1), data.mean, data.std)
    wanted = to_batch(data.test[:7], data, size).contiguous().numpy()
    np.testing.assert_array_equal(image.normalised(data.test.pixels[:7]), wanted)


def test_a_file_that_takes_pixels_gives_the_same_bits(network: Network) -> None:
    image = image_of(network)
    pixels = made_up_images(5, image.shape)
    plain = open_exactly(emit(network))
    seeing = open_exactly(emit(network, batch=None, pixels=Normalisation(MEAN, STD)))
    assert takes_bytes(seeing)
    assert not takes_bytes(plain)
    np.testing.assert_array_equal(outputs(seeing, pixels), outputs(plain, image.normalised(pixels)))


def test_a_file_for_any_number_of_images_runs_each_as_alone(network: Network) -> None:
    x = image_of(network).normalised(made_up_images(5, image_of(network).shape))
    session = open_exactly(emit(network, batch=None))
    assert session.get_inputs()[0].shape[0] == "batch"
    alone = np.concatenate([session.run(None, {"image": one[None]})[0] for one in x])
    np.testing.assert_array_equal(session.run(None, {"image": x})[0], alone)
    prepared(session, 3)()


def test_made_up_images_never_change() -> None:
    """Manifests hold answers to them: other bits would make every exported network look broken."""
    images = made_up_images(3, (6, 6, 3))
    assert images[2, 5, [0, 5]].tolist() == [[241, 55, 12], [5, 210, 105]]
    assert (images[:, :4, :4] == images[:, :1, :1]).all()
    many = made_up_images(IMAGES, (8, 8, 1)).reshape(IMAGES, -1)
    assert len(np.unique(many, axis=0)) == IMAGES


def test_a_file_gives_the_answers_of_the_simulation(network: Network) -> None:
    image = image_of(network)
    answers = expected_answers(network, image)
    session = open_exactly(emit(network))
    share, difference = agreement(
        outputs(session, image.normalised(made_up_images(IMAGES, image.shape))), answers
    )
    assert share >= 0.995
    assert difference < 0.1
    other = random_network(network.workload, rng=np.random.default_rng(9))
    logits = outputs(open_exactly(emit(other)), image.normalised(made_up_images(IMAGES, image.shape)))
    assert agreement(logits, answers)[0] < 0.9
    assert torch.tensor(answers["labels"]).shape == (IMAGES,)


def test_more_metadata_changes_nothing_else(network: Network) -> None:
    model = emit(network, metadata={"a": "1"})
    found = onnx.load_from_string(described(model, {"b": "2"}))
    assert {prop.key: prop.value for prop in found.metadata_props} == {"a": "1", "b": "2"}
    assert found.graph == onnx.load_from_string(model).graph


def manifest(pixels: bool) -> dict[str, Any]:
    return {
        "schema": "export/2",
        "id": "abc123",
        "space": "digits-mbconv",
        "genes": [0, 1],
        "policy": {"stem": "fp32", "head": "int8", "classifier": "int8"},
        "files": file_entries({"model.onnx": b"model"}),
        "opset": 21,
        "data": "digits",
        "seed": 0,
        "answers": {},
        "classes": [str(i) for i in range(25)],
        "input": Input((8, 8, 1), MEAN, STD, pixels).to_json(),
        "device": {"name": "ort-cpu-1t", "cpu": "a CPU"},
        "accuracy": {"test": 0.9, "n": 359},
        "finetuning": {"epochs": 3, "kept": False},
        "latency": {
            **{"median_s": 1e-4, "iqr_s": 1e-6, "replayed": False, "through": "model.onnx"},
            "ratios": {"same/fp32": 0.5, "mobilenet-v2/int8": None},
        },
        "versions": {"python": "3"},
    }


@pytest.mark.parametrize("pixels", [False, True])
def test_the_card_says_what_a_user_needs(pixels: bool) -> None:
    card = model_card(manifest(pixels))
    said = ("90.00% of 359", "100 us", "the same network in fp32 | 0.50 x", "2 in int8", "3 epochs, not kept")
    assert all(one in card for one in said), card
    assert ("uint8 pixels" in card) == pixels
    assert "MobileNetV2" not in card  # it could not be measured
    assert "0, 1, 2" in card
    assert "24" not in card.split("## Use")[0].split("classes")[1]  # only the first are listed


@pytest.mark.parametrize("more", [{}, {"test_accuracy": 0.91, "latency": {"median_s": 5e-5, "cpu": "a CPU"}}])
def test_the_card_says_what_is_known_of_a_library(more: dict[str, Any]) -> None:
    card = model_card(
        {**manifest(False), "library": {"target": "llvm -mcpu=x", "integer_only": True, **more}}
    )
    assert "`llvm -mcpu=x`, weights inside, integer-only" in card
    assert ("; test accuracy 91.00%, 50 us on a CPU. It needs" in " ".join(card.split())) == bool(more)


@pytest.mark.parametrize("pixels", [False, True])
def test_the_code_on_the_card_runs(pixels: bool, network: Network, tmp_path: Path) -> None:
    c, h, w = network.workload.in_shape
    shown = {**manifest(pixels), "input": Input((h, w, c), MEAN, STD, pixels).to_json()}
    (tmp_path / "model.onnx").write_bytes(emit(network, pixels=Normalisation(MEAN, STD) if pixels else None))
    code = model_card(shown).split("```python\n")[1].split("```")[0]
    code = code.replace('"model.onnx"', repr(str(tmp_path / "model.onnx")))
    names: dict[str, Any] = {"pixels": made_up_images(1, (h, w, c))}
    exec(code, names)
    wanted = outputs(open_exactly(emit(network)), image_of(network).normalised(names["pixels"]))
    np.testing.assert_allclose(names["logits"], wanted, atol=1e-4)


def test_the_zip_holds_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "abc123"
    files = {"model.onnx": b"model", "model.so": b"code"}
    path = write_network(folder, files, {**manifest(False), "files": file_entries(files)})
    assert json.loads(path.read_text())["id"] == "abc123"
    with zipfile.ZipFile(archive_of(folder)) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    assert held == {f"abc123/{file.name}": file.read_bytes() for file in folder.iterdir()}
    first = archive_of(folder).read_bytes()
    write_network(folder, files, {**manifest(False), "files": file_entries(files)})
    assert archive_of(folder).read_bytes() == first
    (folder / "mine.txt").write_text("kept")
    write_network(folder, {"model.onnx": b"model"}, manifest(False))
    assert {file.name for file in folder.iterdir()} == {
        "README.md",
        "manifest.json",
        "mine.txt",
        "model.onnx",
    }
    remove_network(folder)
    assert list(tmp_path.iterdir()) == []
