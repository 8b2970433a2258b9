"""The file of a decoder with a key-value cache that is exported beside the one for whole texts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.checks.check import DisagreementError
from nas.checks.parity import open_file
from nas.emit.to_onnx import random_network
from nas.export import decoder_file
from nas.export.decoder_file import build_decoder
from nas.run.command_sections import BenchSection
from nas.serving.bench import bench
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import Candidate
from tests.nas.tiny_decoder import tiny_decoder

FAMILY = tiny_decoder(in_channels=64, classes=64)


def drawn(cache: str) -> tuple[Candidate, QuantizedGraph]:
    genes = np.array(FAMILY.extreme("largest").genes, np.int16)
    genes[FAMILY.space().columns["cache.format"]] = FAMILY.caches.index(cache)
    candidate = FAMILY.space().candidate(genes)
    return candidate, random_network(FAMILY.workload(candidate), rng=np.random.default_rng(0))


@pytest.mark.parametrize("cache", FAMILY.caches)
@pytest.mark.parametrize("portable", [False, True])
def test_it_goes_on_token_by_token(cache: str, portable: bool) -> None:
    names = [info.name for info in open_file(build_decoder(FAMILY, *drawn(cache), portable=portable)).inputs]
    assert names[:3] == ["input_ids", "position_ids", "past_key_values.0.key"]
    assert len(names) == 2 + 2 * max(FAMILY.depths)


def test_one_that_says_something_else_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate, network = drawn("fp32")
    other = replace(
        network, parameters=random_network(network.workload, rng=np.random.default_rng(1)).parameters
    )
    right = decoder_file.emit
    monkeypatch.setattr(
        decoder_file,
        "emit",
        lambda net, **options: right(replace(net, parameters=other.parameters), **options),
    )
    with pytest.raises(DisagreementError, match=r"decoder\.onnx agrees with the simulation at"):
        build_decoder(FAMILY, candidate, network)


@pytest.mark.usefixtures("confined_here")
def test_an_exported_folder_is_timed_by_it(tmp_path: Path) -> None:
    (tmp_path / "decoder.onnx").write_bytes(build_decoder(FAMILY, *drawn("fp32")))
    (tmp_path / "model.onnx").write_bytes(b"of whole texts")
    found = bench(tmp_path, BenchSection(seconds=0.02, prefill=4, decode=5))
    assert [setting.scenario for setting in found.settings] == ["prefill of 4", "decode at 5"]
    assert found.model == tmp_path / "decoder.onnx"
