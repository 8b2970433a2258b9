"""Networks as torch's two exporters write them: the function unchanged, multiply-adds as torch counts."""

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from supernet.imported.import_onnx import import_onnx
from supernet.imported.import_torch import import_torch
from supernet.imported.model import ImportedModel


class Detector(nn.Module):
    """Several outputs, two resolutions, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1, groups=2)
        self.norm, self.up, self.head = (
            nn.BatchNorm2d(32),
            nn.ConvTranspose2d(32, 16, 2, 2),
            nn.Conv2d(32, 6, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = nn.functional.hardswish(self.first(x))
        b = torch.relu(self.norm(self.second(a)))
        larger = nn.functional.interpolate(b, scale_factor=2, mode="nearest")
        out = self.head(torch.cat([self.up(b) + a, a], 1))
        return out[:, :4].flatten(2).transpose(1, 2), out[:, 4:].flatten(2).sigmoid(), larger.mean((2, 3))


class Speech(nn.Module):
    """A convolution over time, a recurrent layer, scores of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.recurrent = nn.Conv1d(8, 16, 5, padding=2), nn.GRU(16, 12, batch_first=True)
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.recurrent(torch.relu(self.conv(x)).transpose(1, 2))
        return torch.log_softmax(self.out(y), -1)


class Encoder(nn.Module):
    """Ids and a mask of any length, attention, layer norm, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(64, 16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.norm, self.inner, self.outer = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))[None]
        query, key, value = (
            part(x).unflatten(-1, (2, 8)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / 8**0.5 + (1 - mask[:, None, None].float()) * -1e4
        x = self.norm(x + (scores.softmax(-1) @ value).transpose(1, 2).flatten(2))
        return x + self.outer(nn.functional.gelu(self.inner(x)))


IMAGE, SOUND = torch.randn(1, 3, 32, 32), torch.randn(1, 8, 20)
IDS, MASK = torch.randint(0, 50, (1, 12)), torch.ones(1, 12, dtype=torch.long)
NETWORKS: dict[str, tuple[nn.Module, tuple[Tensor, ...], dict[str, dict[int, str]]]] = {
    "detector": (Detector().eval(), (IMAGE,), {"x": {0: "batch", 2: "height", 3: "width"}}),
    "speech": (Speech().eval(), (SOUND,), {"x": {2: "time"}}),
    "encoder": (Encoder().eval(), (IDS, MASK), {name: {0: "batch", 1: "length"} for name in ("ids", "mask")}),
    "half": (Detector().eval().half(), (IMAGE.half(),), {"x": {0: "batch"}}),
}


def legacy(name: str) -> bytes:
    """A network by torch's exporter of before, which spells most things out."""
    module, examples, axes = NETWORKS[name]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            examples,
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=13,
            input_names=[*axes],
            dynamic_axes=axes,
        )
    return buffer.getvalue()


def assert_computes(model: ImportedModel, module: nn.Module, examples: tuple[Tensor, ...]) -> None:
    feeds = {name: tensor.numpy() for name, tensor in zip(model.inputs, examples, strict=True)}
    outputs = host_runtime().compile(Artifact(model.content)).run(feeds)
    with torch.no_grad():
        expected = module(*examples)
    expected = expected if isinstance(expected, tuple) else (expected,)
    tolerance = 2e-2 if expected[0].dtype == torch.float16 else 1e-4
    for actual, tensor in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(actual, tensor.numpy(), rtol=tolerance, atol=tolerance)


def counted(module: nn.Module, examples: tuple[Tensor, ...]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*examples)
    return counter.get_total_flops() // 2


def larger(name: str) -> tuple[Tensor, ...]:
    """Other sizes of what is open."""
    others: dict[str, tuple[Any, ...]] = {
        "detector": (torch.randn(2, 3, 48, 64),),
        "speech": (torch.randn(1, 8, 33),),
        "encoder": (torch.randint(0, 50, (3, 7)), torch.tensor([[1] * 5 + [0] * 2] * 3)),
        "half": (torch.randn(2, 3, 32, 32).half(),),
    }
    return others[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_what_the_older_exporter_writes_computes_the_same_at_any_size(name: str) -> None:
    module, examples, axes = NETWORKS[name]
    shapes = {given: tuple(x.shape) for given, x in zip(axes, examples, strict=True)}
    model = import_onnx(legacy(name), shapes=shapes)
    operations = {node.op_type for node in onnx.load_model_from_string(model.content).graph.node}
    assert not operations & {"Erf", "BatchNormalization", "Constant", "Identity"}
    assert ("LayerNormalization" in operations) == (name == "encoder")
    for given in (examples, larger(name)):
        assert_computes(model, module, given)
    if name == "speech":  # torch counts no recurrent layers
        assert model.macs == 20 * (16 * 8 * 5 + 3 * 12 * (16 + 12) + 12 * 5)
    else:
        assert model.macs == counted(module, examples)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_modules_are_imported_as_they_are(name: str) -> None:
    module, examples, _ = NETWORKS[name]
    module.train()
    model = import_torch(module, examples)
    assert module.training
    assert_computes(model, module.eval(), examples)


@pytest.mark.slow
def test_programs_and_examples_by_name_are_taken_too() -> None:
    module = NETWORKS["encoder"][0]
    length = torch.export.Dim.AUTO
    open_length = {"ids": {1: length}, "mask": {1: length}}
    model = import_torch(module, {"mask": MASK, "ids": IDS}, dynamic_shapes=open_length)
    assert [*model.bound.values()] == [12]
    program = torch.export.export(NETWORKS["detector"][0], (IMAGE,))
    assert_computes(import_torch(program, IMAGE), NETWORKS["detector"][0], (IMAGE,))


@pytest.mark.slow
def test_what_torch_cannot_export_is_told_in_one_line() -> None:
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(
        TrilobitError, match=r"torch cannot export this module as ONNX: .*data-dependent"
    ) as told:
        import_torch(Undecided(), torch.randn(3))
    assert "\n" not in str(told.value)
