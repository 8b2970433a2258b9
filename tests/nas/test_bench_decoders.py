"""`nas bench` of decoders: recognised by their inputs, ours and those of others."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.cache import with_cache
from hw_profiles.graph.scenario import bind
from nas.cli.main import main
from nas.emit.to_onnx import emit, random_network
from nas.run.command_sections import BenchSection
from nas.serving.bench import bench
from nas.serving.decoders import read_decoder, scenarios
from tests.contracts.test_cache import POSITIONS, decoder

pytestmark = pytest.mark.usefixtures("confined_here")
BLOCKS = 2
SHORT = BenchSection(seconds=0.02, prefill=6, decode=9)


def written(folder: Path, cache: str = "fp32", **bound: int) -> Path:
    cached = random_network(with_cache(decoder(cache)), rng=np.random.default_rng(0))
    network = replace(cached, workload=bind(cached.workload, bound))
    path = folder / "decoder.onnx"
    path.write_bytes(emit(network, batch=None))
    return path


@pytest.mark.parametrize("cache", ["fp32", "fp16", "int8"])
def test_a_decoder_is_timed_to_the_first_token_and_for_each_token(tmp_path: Path, cache: str) -> None:
    start = time.perf_counter()
    prefill, decode = bench(written(tmp_path, cache), SHORT).settings
    elapsed_s = time.perf_counter() - start
    assert (prefill.scenario, decode.scenario) == ("prefill of 6", "decode at 9")
    for served, tokens in ((prefill, 6), (decode, 1)):
        mean_s = tokens / served.rate_per_s
        assert 0 < served.percentiles_s["50"] < 2 * served.percentiles_s["99"]
        assert mean_s > 0
        assert served.counted == "tokens"
        assert served.calls * mean_s < elapsed_s


def test_the_command_says_what_users_wait_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--seconds", "0.02", "--prefill", "6", "--decode", "9", "--batch", "1,2"]
    assert main(["bench", str(written(tmp_path)), *flags]) == 0
    told = capsys.readouterr()
    text = told.out + told.err
    assert "to the first token (prefill of 6), then" in text
    assert "per token (decode at 9)" in text
    assert "1 thread(s), batch 2" in text


def test_a_file_for_one_token_at_a_time_is_timed_at_that(tmp_path: Path) -> None:
    (decode,) = bench(written(tmp_path, sequence=1), replace(SHORT, prefill=None)).settings
    assert decode.scenario == "decode at 9"
    with pytest.raises(TrilobitError, match=r"made for 1, asked for 6"):
        bench(written(tmp_path, sequence=1), SHORT)


def test_more_positions_than_a_file_has_are_said(tmp_path: Path) -> None:
    with pytest.raises(TrilobitError, match=r"decode at 99 \(if it has fewer positions, ask for less"):
        bench(written(tmp_path), replace(SHORT, decode=POSITIONS + 67))


def test_lengths_of_what_is_no_decoder_are_refused(tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    path = tmp_path / "relu.onnx"
    path.write_bytes(
        helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
        ).SerializeToString()
    )
    with pytest.raises(TrilobitError, match="--prefill and --decode are of decoders"):
        bench(path, SHORT)
    assert bench(path, BenchSection(seconds=0.01)).settings[0].scenario == ""


def others(*inputs: tuple[str, int, list[int | str]]) -> bytes:
    """A file that reads these, and whose answers are over 50 ids."""
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "s", 50])
    return helper.make_model(helper.make_graph([], "g", values, [logits])).SerializeToString()


F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def test_inputs_of_others_are_recognised() -> None:
    optimum = [
        ("input_ids", I64, ["batch_size", "sequence_length"]),
        ("attention_mask", I64, ["batch_size", "past_sequence_length + sequence_length"]),
        ("position_ids", I64, ["batch_size", "sequence_length"]),
        ("use_cache_branch", B, [1]),
        *(
            (f"past_key_values.{i}.{part}", F, ["batch_size", 4, "past_sequence_length", 16])
            for i in range(2)
            for part in ("key", "value")
        ),
    ]
    found = read_decoder(others(*optimum))
    assert found is not None
    assert (found.vocabulary, found.batch, len(found.caches)) == (50, None, 4)
    feeds = found.feeds(2, 3, 7)
    assert {name: x.shape for name, x in feeds.items()} == {
        "input_ids": (2, 3),
        "attention_mask": (2, 10),
        "position_ids": (2, 3),
        "use_cache_branch": (1,),
        **{f"past_key_values.{i}.{part}": (2, 4, 7, 16) for i in range(2) for part in ("key", "value")},
    }
    assert feeds["position_ids"][1].tolist() == [7, 8, 9]
    assert feeds["use_cache_branch"].tolist() == [True]
    assert feeds["input_ids"].max() < 50
    # keys and values in one tensor, named otherwise, ids of 32 bits
    torch_like = [
        ("ids", TensorProto.INT32, ["b", "s"]),
        ("past_0", TensorProto.FLOAT16, [2, "b", 4, "p", 8]),
    ]
    both = read_decoder(others(*torch_like))
    assert both is not None
    assert both.feeds(3, 1, 5)["past_0"].shape == (2, 3, 4, 5, 8)
    assert both.feeds(3, 1, 5)["past_0"].dtype == np.float16


class WithCache(nn.Module):
    """GPT-2's layers, written plainly: learned positions, one cache of keys and one of values a block."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(64, 16)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2 * BLOCKS + 1))
        self.products = nn.ModuleList(nn.Linear(16, 48) for _ in range(BLOCKS))
        self.ups = nn.ModuleList(nn.Linear(16, 64) for _ in range(BLOCKS))
        self.downs = nn.ModuleList(nn.Linear(64, 16) for _ in range(BLOCKS))

    def forward(self, ids: Tensor, position_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        x, present = self.words(ids) + self.places(position_ids), []
        (batch, length), before = ids.shape, past[0].shape[2]
        for b in range(BLOCKS):
            qkv = self.products[b](self.norms[2 * b](x)).view(batch, length, 3, 2, 8).permute(2, 0, 3, 1, 4)
            k, v = (torch.cat((past[2 * b + i], qkv[1 + i]), 2) for i in range(2))
            present += [k, v]
            seen = torch.arange(before + length)[None, :] <= (before + torch.arange(length))[:, None]
            y = nn.functional.scaled_dot_product_attention(qkv[0], k, v, attn_mask=seen)
            x = x + y.transpose(1, 2).reshape(batch, length, 16)
            x = x + self.downs[b](
                nn.functional.gelu(self.ups[b](self.norms[2 * b + 1](x)), approximate="tanh")
            )
        return (self.norms[-1](x) @ self.words.weight.T, *present)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter
def test_a_decoder_that_torch_exported_is_timed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    past = [torch.randn(2, 2, 5, 8) for _ in range(2 * BLOCKS)]
    names = ["input_ids", "position_ids", *(f"past_{i}" for i in range(2 * BLOCKS))]
    ids, places = torch.randint(50, (2, 3)), torch.arange(5, 8)[None].repeat(2, 1)
    open_dims = {name: {0: "batch", 1 if name in names[:2] else 2: name} for name in names}
    torch.onnx.export(
        WithCache().eval(),
        (ids, places, *past),
        str(tmp_path / "gpt2.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=names,
        output_names=["logits", *(f"present_{i}" for i in range(2 * BLOCKS))],
        dynamic_axes={**open_dims, **{name: {0: "batch", 1: "sequence"} for name in names[:2]}},
    )
    prefill, decode = bench(tmp_path / "gpt2.onnx", SHORT).settings
    assert (prefill.scenario, decode.scenario) == ("prefill of 6", "decode at 9")


def test_what_is_no_decoder_and_what_cannot_be_told_is_left_alone() -> None:
    assert read_decoder(b"no file") is None
    assert read_decoder(others(("input_ids", I64, ["b", "s"]))) is None
    assert read_decoder(others(("past_x", F, ["b", 4, "p", 8]))) is None
    unclear = read_decoder(others(("ids", I64, ["b", "s"]), ("past_0", F, ["b", "heads", "p", 8])))
    assert unclear is not None
    with pytest.raises(ValueError, match=r"which of these are positions cannot be told; give .*--inputs"):
        unclear.feeds(1, 1, 3)
    strange = [("ids", I64, ["b", "s"]), ("past_0", F, ["b", 4, "p", 8]), ("images", F, ["b", 3, "h", "w"])]
    more = read_decoder(others(*strange))
    assert more is not None
    with pytest.raises(ValueError, match="images is b x 3 x h x w, which a decoder need not read"):
        scenarios(more, (1,), 4, 4)
    assert onnx.load_from_string(others(*strange)).graph.input[0].name == "ids"
