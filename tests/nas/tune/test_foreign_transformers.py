"""Transformers as others write and export them, from the exported file to one in int8 that says the same."""

import importlib
import io
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from hw_profiles.runtimes.plugin import host_runtime
from hw_profiles.runtimes.runtime import Artifact
from nas.emit.rewrite_onnx import rewrite
from nas.emit.unit_formats import unit_formats
from supernet.data.array_samples import array_samples
from supernet.imported.import_onnx import import_onnx
from supernet.imported.import_torch import onnx_of
from supernet.imported.input_specs import input_specs
from supernet.imported.model import ImportedModel
from supernet.ptq.quantize_model import quantize_model

Arrays = Mapping[str, NDArray[Any]]
SAMPLES, WIDTH, HEADS, VOCABULARY = 24, 32, 4, 40
SAME_DB, NEAR_DB = 60.0, 20.0  # signal to noise of the file in fp32, and in int8
TEXT = ("input_ids", "attention_mask")
BERT_READS = (*TEXT, "token_type_ids")
RNG = np.random.default_rng(0)


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions as transformers spells them: halves, one negated."""
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()


class Decoder(nn.Module):
    """LLaMA's block: rotary positions, grouped heads repeated by Expand, a causal mask joined with that of
    padding, a SiLU gate.
    """

    def __init__(self) -> None:
        super().__init__()
        self.words, self.first, self.second = nn.Embedding(VOCABULARY, WIDTH), RmsNorm(), RmsNorm()
        self.query, self.keys = nn.Linear(WIDTH, WIDTH, False), nn.Linear(WIDTH, WIDTH // 2, False)
        self.values, self.out = nn.Linear(WIDTH, WIDTH // 2, False), nn.Linear(WIDTH, WIDTH, False)
        self.gate, self.up = nn.Linear(WIDTH, 48, False), nn.Linear(WIDTH, 48, False)
        self.down, self.head = nn.Linear(48, WIDTH, False), nn.Linear(WIDTH, VOCABULARY, False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x, (batch, length) = self.words(ids), ids.shape
        depth = WIDTH // HEADS
        places = torch.arange(length, device=ids.device)
        frequencies = 100.0 ** (-torch.arange(0, depth, 2).float() / depth)
        angles = torch.cat([places[:, None] * frequencies] * 2, -1)
        y = self.first(x)
        q = turned(self.query(y).view(batch, length, HEADS, depth).transpose(1, 2), angles)
        k, v = (part(y).view(batch, length, -1, depth).transpose(1, 2) for part in (self.keys, self.values))
        k, v = (
            t[:, :, None].expand(batch, HEADS // 2, 2, length, depth).reshape(batch, HEADS, length, depth)
            for t in (turned(k, angles), v)
        )
        seen = (places[None, :] <= places[:, None])[None, None] & mask[:, None, None, :].bool()
        x = x + self.out(
            F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).reshape(batch, length, -1)
        )
        y = self.second(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class Windows(nn.Module):
    """Swin's block: windows of a shifted map, positions chosen from a table, GELU through Tanh, a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, WIDTH, 2, 2), nn.LayerNorm(WIDTH)
        self.products, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down, self.head = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH), nn.Linear(WIDTH, 7)
        self.table = nn.Parameter(0.1 * torch.randn(49, HEADS))
        self.register_buffer("places", torch.randint(0, 49, (16 * 16,)))

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.patches(image).permute(0, 2, 3, 1))
        batch, height, width, _ = x.shape
        windows = torch.roll(x, (-2, -2), (1, 2)).view(batch, height // 4, 4, width // 4, 4, WIDTH)
        windows = windows.permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, WIDTH)
        q, k, v = self.products(windows).reshape(-1, 16, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        bias = self.table[self.places].view(16, 16, HEADS).permute(2, 0, 1)
        scores = (q * (WIDTH // HEADS) ** -0.5) @ k.transpose(-2, -1) + bias
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, 4, WIDTH))
        y = y.view(batch, height // 4, width // 4, 4, 4, WIDTH).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(batch, height, width, WIDTH), (2, 2), (1, 2))
        return self.head((x + self.down(F.gelu(self.up(x), approximate="tanh"))).mean((1, 2)))


def texts(names: tuple[str, ...] = ("ids", "mask"), length: int = 12) -> dict[str, NDArray[Any]]:
    """Ids, and masks of texts that end before; types are 0."""
    ends = RNG.integers(4, length + 1, SAMPLES)
    arrays = {
        "i": RNG.integers(3, VOCABULARY, (SAMPLES, length)),
        "m": (np.arange(length) < ends[:, None]).astype(np.int64),
        "t": np.zeros((SAMPLES, length), np.int64),
    }
    initials = {"ids": "i", "input_ids": "i", "mask": "m", "attention_mask": "m", "token_type_ids": "t"}
    return {name: arrays[initials[name]] for name in names}


def images(name: str = "image", size: int = 16) -> dict[str, NDArray[Any]]:
    return {name: RNG.normal(size=(SAMPLES, 3, size, size)).astype(np.float32)}


def legacy(module: nn.Module, arrays: Arrays, opset: int = 17) -> bytes:
    """By torch's exporter of before, with a batch, and a length of texts, that are open."""
    buffer, examples = io.BytesIO(), tuple(torch.from_numpy(array[:1]) for array in arrays.values())
    axes = {
        name: {0: "batch", 1: "length"} if array.ndim == 2 else {0: "batch"} for name, array in arrays.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            examples,
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=opset,
            input_names=[*arrays],
            dynamic_axes=axes,
        )
    return buffer.getvalue()


def signal_to_noise_db(file: bytes, arrays: Arrays, expected: NDArray[Any]) -> float:
    """Of the one output of a file, one example at a time."""
    executable = host_runtime().compile(Artifact(file))
    given = [
        next(iter(executable.run({n: a[i : i + 1] for n, a in arrays.items()}).values()))
        for i in range(SAMPLES)
    ]
    noise = np.square(np.concatenate(given) - expected).sum()
    return float(10 * np.log10(np.square(expected).sum() / max(noise, 1e-30)))


def check(content: bytes, module: nn.Module, arrays: Arrays) -> ImportedModel:
    """Import, calibrate and rewrite; what comes out says what the module says."""
    with torch.no_grad():
        expected = module(*map(torch.from_numpy, arrays.values())).numpy()
    model = import_onnx(content, shapes={name: (1, *array.shape[1:]) for name, array in arrays.items()})
    allowed = unit_formats(model, host_runtime())
    formats = {name: ("int8",) for name, unit in allowed.items() if "int8" in unit.allowed}
    samples = array_samples("made up", arrays, input_specs(content).specs)
    quantization = quantize_model(model, samples, formats, rng=np.random.default_rng(0))
    assert signal_to_noise_db(rewrite(quantization, {}), arrays, expected) >= SAME_DB
    assert (
        signal_to_noise_db(rewrite(quantization, dict.fromkeys(formats, "int8")), arrays, expected) >= NEAR_DB
    )
    products = {unit.name for unit in model.units if unit.op in ("Conv", "Gemm", "MatMul")}
    assert products <= formats.keys()
    return model


OWN: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, NDArray[Any]]], int, set[str]]] = {
    "decoder": (Decoder, texts, 8, {"Softmax", "Expand", "Where"}),
    "windows": (Windows, images, 6, {"LayerNormalization", "Gelu"}),
}


@pytest.mark.parametrize("name", OWN)
def test_what_is_spelled_out_is_tuned_without_being_known(name: str) -> None:
    torch.manual_seed(0)
    make, data, products, operations = OWN[name]
    module, arrays = make().eval(), data()
    model = check(legacy(module, arrays), module, arrays)
    assert sum(unit.weighted for unit in model.units) == products
    assert operations <= {unit.op for unit in model.units}


def timm_model(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        timm = library("timm")
        return timm.create_model(name, pretrained=False, num_classes=10, **options)  # type: ignore[no-any-return]

    return make


class Called(nn.Module):
    """A model of transformers, called by place, that gives one tensor."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], output: str) -> None:
        super().__init__()
        self.model, self.names, self.output = model, names, output

    def forward(self, *tensors: Tensor) -> Tensor:
        given = self.model(**dict(zip(self.names, tensors, strict=True)), return_dict=True)
        return getattr(given, self.output)  # type: ignore[no-any-return]


def text_model(
    kind: str, config: str, names: tuple[str, ...] = TEXT, output: str = "logits", **sizes: Any
) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = library("transformers")
        model = getattr(transformers, kind)(getattr(transformers, config)(**sizes))
        model.config.use_cache = False
        return Called(model, names, output)

    return make


def library(name: str) -> Any:
    """Return a library that is no dependency of the project; skip the test where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever is amiss with it, or with what it needs
        pytest.skip(f"{name} cannot be imported: {error}")


BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
T5 = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
SMALL_VIT = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 32, "num_heads": 4}
FOREIGN: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, NDArray[Any]]]]] = {
    "vit": (timm_model("vit_tiny_patch16_224", **SMALL_VIT), lambda: images("x")),
    "deit": (timm_model("deit_tiny_distilled_patch16_224", **SMALL_VIT), lambda: images("x")),
    "swin": (
        timm_model(
            "swin_tiny_patch4_window7_224",
            img_size=32,
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 4),
            window_size=4,
        ),
        lambda: images("x", 32),
    ),
    "convnext": (
        timm_model("convnext_atto", depths=(1, 1, 1, 1), dims=(16, 16, 32, 32)),
        lambda: images("x", 32),
    ),
    "bert": (
        text_model("BertForSequenceClassification", "BertConfig", BERT_READS, **BERT),
        lambda: texts(BERT_READS),
    ),
    "bert tokens": (text_model("BertForTokenClassification", "BertConfig", **BERT), lambda: texts(TEXT)),
    "albert": (
        text_model("AlbertForSequenceClassification", "AlbertConfig", embedding_size=16, **BERT),
        lambda: texts(TEXT),
    ),
    "gpt2": (
        text_model(
            "GPT2LMHeadModel",
            "GPT2Config",
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=32,
        ),
        lambda: texts(TEXT),
    ),
    "llama": (
        text_model("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=2, **BERT),
        lambda: texts(TEXT),
    ),
    "t5": (text_model("T5EncoderModel", "T5Config", output="last_hidden_state", **T5), lambda: texts(TEXT)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
def test_models_of_timm_and_transformers_are_tuned(name: str) -> None:
    torch.manual_seed(0)
    make, data = FOREIGN[name]
    module, arrays = make().eval(), data()
    check(legacy(module, arrays), module, arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "bert", "llama"])
def test_what_the_newer_exporter_writes_of_them_is_tuned(name: str) -> None:
    torch.manual_seed(0)
    make, data = FOREIGN[name]
    module, arrays = make().eval(), data()
    content = onnx_of(module, tuple(torch.from_numpy(array[:1]) for array in arrays.values()))
    named = dict(zip(input_names(content), arrays.values(), strict=True))
    model = check(content, module, named)
    assert not any(unit.name.startswith("node_") for unit in model.units if unit.weighted)


def input_names(content: bytes) -> list[str]:
    return [spec.name for spec in input_specs(content).specs]
