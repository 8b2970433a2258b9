"""Published checkpoints: found, renamed and checked, or refused without running anything in them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hw_profiles.errors import TrilobitError
from supernet.families.family import FAMILIES, load_family
from supernet.families.ofa_mobile import MobileFamily, MobileLayers, MobileStage
from supernet.families.ofa_mobile_names import mobilenet_v3, proxyless
from supernet.zoo import ofa_checkpoint
from supernet.zoo.ofa_checkpoint import Fit, Imported, import_original, plain_name, read_tensors

CLASSES = 6
THEIRS = {
    "stem": "first_conv.conv",
    "stem.norm": "first_conv.bn",
    "head": "final_expand_layer.conv",
    "head.norm": "final_expand_layer.bn",
    "mix": "feature_mix_layer.conv",
    "classifier": "classifier.linear",
    "expand": "inverted_bottleneck.conv.conv",
    "expand.norm": "inverted_bottleneck.bn.bn",
    "depthwise": "depth_conv.conv.conv",
    "depthwise.norm": "depth_conv.bn.bn",
    "squeeze.reduce": "depth_conv.se.fc.reduce",
    "squeeze.excite": "depth_conv.se.fc.expand",
    "project": "point_linear.conv.conv",
    "project.norm": "point_linear.bn.bn",
    "depthwise.transforms.5": "depth_conv.conv.7to5_matrix",
    "depthwise.transforms.3": "depth_conv.conv.5to3_matrix",
}


def tiny(width: int) -> Any:
    def make(*, in_channels: int, classes: int, formats: tuple[str, ...] = ("fp32", "int8")) -> MobileFamily:
        stages = (MobileStage(width, 2, "relu"), MobileStage(16, 1, "hswish", squeeze=True))
        layers = MobileLayers(in_channels, 8, 8, stages, 16, 24, classes, "hswish", "relu")
        return MobileFamily(f"tiny-{width}", layers, 1e-5, formats, (16,))

    return make


tiny_8, tiny_24 = tiny(8), tiny(24)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small spaces in place of the published ones."""
    for name in ofa_checkpoint.ORIGINAL_NAMES.copy():
        monkeypatch.delitem(ofa_checkpoint.ORIGINAL_NAMES, name)
    for width in (8, 24):
        monkeypatch.setitem(FAMILIES, f"tiny-{width}", f"{__name__}:tiny_{width}")
        names = "supernet.families.ofa_mobile_names:mobilenet_v3"
        monkeypatch.setitem(ofa_checkpoint.ORIGINAL_NAMES, f"tiny-{width}", names)


def original_name(name: str) -> str:
    """What the original calls a tensor of ours, fully wrapped as it is written today."""
    place, _, rest = name.partition(".")
    if place == "stages":
        s, b, rest = rest.split(".", 2)
        prefix = f"blocks.{1 + 4 * int(s) + int(b)}.conv."
    elif place == "first":
        prefix = "blocks.0.conv."
    else:
        prefix, rest = "", name
    if rest in THEIRS:  # a kernel matrix is a tensor by itself
        return prefix + THEIRS[rest]
    part, _, kind = rest.rpartition(".")
    return f"{prefix}{THEIRS[part]}.{kind}"


def state(width: int = 8) -> dict[str, Tensor]:
    """A network with numbers of its own, by our names."""
    family = load_family(f"tiny-{width}", in_channels=3, classes=CLASSES)
    net = family.supernet(rng=np.random.default_rng(width))
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
        for name, t in net.state_dict().items()
    }


def write(path: Path, tensors: Mapping[str, Tensor], **options: Any) -> Path:
    torch.save(
        {"state_dict": {original_name(name): tensor for name, tensor in tensors.items()}}, path, **options
    )
    return path


def imported(path: Path, **options: Any) -> Imported:
    imported = import_original(path, **options)
    assert isinstance(imported, Imported), imported.lines()
    return imported


def misfit(path: Path, **options: Any) -> Fit:
    fit = import_original(path, **options)
    assert isinstance(fit, Fit)
    return fit


@pytest.mark.parametrize("zipped", [True, False])
def test_every_tensor_comes_through_under_our_name(tmp_path: Path, zipped: bool) -> None:
    """In torch's present format and in the one of 2020, which the published files have."""
    expected = state()
    found = imported(write(tmp_path / "net", expected, _use_new_zipfile_serialization=zipped))
    assert (found.family.name, found.family.classes, found.fit.classes) == ("tiny-8", CLASSES, CLASSES)
    assert set(found.model) == set(expected)
    assert all(torch.equal(found.model[name], tensor) for name, tensor in expected.items())
    net = found.family.supernet(rng=np.random.default_rng(0))
    net.load_state_dict(dict(found.model))
    assert found.fit.lines() == [f"tiny-8: {len(expected)} tensors fit"]


@pytest.mark.parametrize("width", [8, 24])
def test_the_space_is_found_by_the_shapes(tmp_path: Path, width: int) -> None:
    path = write(tmp_path / "net", state(width))
    assert imported(path).family.name == f"tiny-{width}"
    assert imported(path, space=f"tiny-{width}").family.name == f"tiny-{width}"
    other = f"tiny-{32 - width}"
    assert misfit(path, space=other).space == other


def test_the_formats_are_those_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "net", state())
    assert imported(path, formats=("fp32", "int4")).family.formats == ("fp32", "int4")


def test_counters_do_not_matter_and_half_precision_is_widened(tmp_path: Path) -> None:
    expected = {name: t.half() for name, t in state().items() if t.is_floating_point()}
    found = imported(write(tmp_path / "net", expected))
    assert {t.dtype for name, t in found.model.items() if name in expected} == {torch.float32}
    assert all(torch.equal(found.model[name].half(), tensor) for name, tensor in expected.items())
    assert len(found.fit.fitted) == len(expected)


def test_what_does_not_fit_is_listed_by_kind(tmp_path: Path) -> None:
    tensors = state()
    del tensors["mix.weight"]
    tensors["stages.0.1.expand.weight"] = tensors["stages.0.1.expand.weight"][:, :4]
    torch.save(
        {
            **{original_name(name): tensor for name, tensor in tensors.items()},
            "optimizer.step": torch.ones(()),
        },
        tmp_path / "net",
    )
    fit = misfit(tmp_path / "net")
    assert not fit.whole
    assert fit.lines()[1:] == [
        "  missing in the file: mix.weight",
        "  in the file only: optimizer.step",
        "  of another shape: stages.0.1.expand.weight is 48x4x1x1 in the file, 48x8x1x1 in the space",
    ]


def test_long_lists_are_cut(tmp_path: Path) -> None:
    torch.save({f"tensor{i}": torch.ones(1) for i in range(30)}, tmp_path / "net")
    lines = misfit(tmp_path / "net").lines()
    assert sum("in the file only: tensor" in line for line in lines) == ofa_checkpoint.LISTED
    assert f"  in the file only: {30 - ofa_checkpoint.LISTED} more" in lines


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, zipped: bool) -> None:
    marker, path = tmp_path / "ran", tmp_path / "net"
    document = {"state_dict": {"first_conv.conv.weight": torch.ones(1)}, "extra": Malicious(marker)}
    torch.save(document, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(TrilobitError, match=r"not a file of tensors alone .*code, which is never run"):
        import_original(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)  # the file does hold code that runs
    assert marker.exists()


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "net", state()).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (b"", b"no archive", whole[: len(whole) // 2], bytes(flipped)):
        (tmp_path / "damaged").write_bytes(content)
        with pytest.raises(TrilobitError, match="not a file of tensors alone"):
            import_original(tmp_path / "damaged")


@pytest.mark.parametrize(
    "document",
    [
        torch.ones(3),
        {},
        [torch.ones(1)],
        {"epoch": 3},
        {"state_dict": {}},
        {"state_dict": {3: torch.ones(1)}},
    ],
)
def test_other_documents_are_refused(tmp_path: Path, document: object) -> None:
    torch.save(document, tmp_path / "net")
    with pytest.raises(TrilobitError, match="holds no state_dict"):
        read_tensors(tmp_path / "net")


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    tensors = state()
    tensors["head.weight"][0, 0] = torch.nan
    with pytest.raises(
        TrilobitError, match=r"final_expand_layer.conv.weight holds values that are not finite"
    ):
        import_original(write(tmp_path / "net", tensors))


def test_a_tensor_in_two_spellings_is_refused(tmp_path: Path) -> None:
    torch.save({"a.bn.weight": torch.ones(1), "a.bn.bn.weight": torch.ones(1)}, tmp_path / "net")
    with pytest.raises(TrilobitError, match="names some tensors twice"):
        import_original(tmp_path / "net")


def test_missing_files_and_spaces_say_so(tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match="nothing: no such checkpoint"):
        import_original(tmp_path / "nothing")
    with pytest.raises(TrilobitError, match=r"'cifar-mbconv' cannot be imported; known: tiny-24, tiny-8"):
        import_original(tmp_path / "nothing", space="cifar-mbconv")


@pytest.mark.parametrize(
    "spelling",
    [
        "module.blocks.5.mobile_inverted_conv.point_linear.conv.weight",
        "blocks.5.conv.point_linear.conv.conv.weight",
        "blocks.5.mobile_inverted_conv.point_linear.conv.conv.weight",
    ],
)
def test_all_spellings_are_one(spelling: str) -> None:
    assert plain_name(spelling) == "blocks.5.conv.point_linear.conv.weight"


@pytest.mark.parametrize(
    ("space", "rename"),
    [("ofa-mbv3", mobilenet_v3), ("ofa-mbv3-w1.2", mobilenet_v3), ("ofa-proxyless", proxyless)],
)
def test_the_published_spaces_have_a_name_for_every_tensor(space: str, rename: Any) -> None:
    names = load_family(space, in_channels=3, classes=2).supernet(rng=np.random.default_rng(0)).state_dict()
    theirs = {**THEIRS, "head": "feature_mix_layer.conv", "head.norm": "feature_mix_layer.bn"}
    for name in names:
        original = original_name(name)
        if space == "ofa-proxyless" and name.startswith("head"):
            part, _, kind = name.rpartition(".")
            original = f"{theirs[part]}.{kind}"
        assert rename(plain_name(original)) == name


@pytest.mark.parametrize(
    "name", ["blocks.1", "blocks.x.conv.expand.weight", "blocks.1.conv.other.weight", "fc.weight"]
)
def test_unknown_names_have_no_counterpart(name: str) -> None:
    assert mobilenet_v3(name) is None
    assert proxyless(name) is None
