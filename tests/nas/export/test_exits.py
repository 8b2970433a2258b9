"""Decoders of several depths in one file: each exit says what the decoder of its depth says, bit for bit."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from nas.checks.parity import file_metric, open_file
from nas.emit.to_onnx import emit
from nas.export.exits import METADATA, build_exits, exit_candidates, exits_file
from nas.run.config import ExportSection
from supernet.families.decoder import text_decoder
from supernet.families.mbconv import digits_mbconv
from supernet.graph.joined import joined
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate, simulate_all
from supernet.ptq.calibrate import observe, quantize
from supernet.space.space import Candidate
from supernet.tasks.text_sources import read_own_text

FAMILY = text_decoder(in_channels=256, classes=256)
COLUMNS = FAMILY.space().columns


def of_short_texts(genes: Sequence[int]) -> Candidate:
    """A decoder of all four blocks."""
    row = np.array(genes, np.int16)
    row[COLUMNS["length"]], row[COLUMNS["s0.depth"]] = 0, 2
    return FAMILY.space().candidate(row)


ANY = np.random.default_rng(5).integers(0, FAMILY.space().cardinalities)
CANDIDATES = {
    "fp32": of_short_texts(FAMILY.extreme("largest").genes),
    "int8": of_short_texts(FAMILY.extreme("largest", "int8").genes),
    "mixed": of_short_texts(ANY),
}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    """The supernet, its blocks no identities."""
    net = FAMILY.supernet(rng=np.random.default_rng(0)).eval()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(
                module.weight, std=module.in_features**-0.5, generator=torch.Generator().manual_seed(0)
            )
    return net


def taken_out(net: nn.Module, candidate: Candidate) -> tuple[dict[int, QuantizedGraph], Tensor]:
    """The decoders that a candidate begins with, each by itself, and what they read."""
    x = FAMILY.input.drawn(2, FAMILY.resolution(candidate), generator=torch.Generator().manual_seed(1))

    def network(candidate: Candidate) -> QuantizedGraph:
        subnet = FAMILY.extract(net, candidate).eval()
        return quantize(subnet, FAMILY.workload(candidate), observe(subnet, x))

    nested = exit_candidates(FAMILY.space(), candidate)
    return {blocks: network(shallower) for blocks, shallower in nested.items()}, x


def by_name(networks: Mapping[int, QuantizedGraph]) -> dict[str, QuantizedGraph]:
    return {f"exit{blocks}": network for blocks, network in networks.items()}


@pytest.mark.parametrize("candidate", CANDIDATES.values(), ids=CANDIDATES)
def test_each_exit_says_what_the_decoder_of_its_depth_says_to_the_last_bit(
    net: nn.Module, candidate: Candidate
) -> None:
    networks, x = taken_out(net, candidate)
    assert list(networks) == [2, 3, 4]
    together = simulate_all(joined(by_name(networks)), (x,))
    file = open_file(exits_file(networks, batch=2)).run({"input_ids": x.numpy()})
    for network, exit_logits, (name, in_file) in zip(networks.values(), together, file.items(), strict=True):
        assert torch.equal(exit_logits, simulate(network, x))
        ((_, alone),) = open_file(emit(network, batch=2)).run({"input_ids": x.numpy()}).items()
        np.testing.assert_array_equal(in_file, alone, err_msg=name)
    shallow, *_, deep = file.values()
    assert not np.array_equal(shallow, deep)


def test_the_blocks_are_there_once_and_the_heads_share_their_numbers(net: nn.Module) -> None:
    networks, _ = taken_out(net, CANDIDATES["int8"])
    work = joined(by_name(networks)).workload
    more = {f"exit{blocks}.{name}" for blocks in (2, 3) for name in ("norm", "norm.quantize", "head")}
    assert Counter(work.names) == Counter([*networks[4].workload.names, *more])
    model = exits_file(networks, metadata={"who": "me"})
    proto = onnx.load_from_string(model)
    assert [output.name for output in proto.graph.output] == ["exit2.head", "exit3.head", "head"]
    assert {prop.key: prop.value for prop in proto.metadata_props} == {METADATA: "2 3 4", "who": "me"}
    onnx.checker.check_model(proto, full_check=True)
    assert len(model) < 1.03 * len(emit(networks[4]))


def test_networks_that_share_nothing_stay_apart(net: nn.Module) -> None:
    networks, x = taken_out(net, CANDIDATES["fp32"])
    other = FAMILY.supernet(rng=np.random.default_rng(9)).eval()
    networks[3] = taken_out(other, CANDIDATES["fp32"])[0][3]
    together = simulate_all(joined(by_name(networks)), (x,))
    assert [torch.equal(y, simulate(n, x)) for y, n in zip(together, networks.values(), strict=True)] == [
        True
    ] * 3


def test_a_space_of_several_depths_has_no_exits() -> None:
    family = digits_mbconv(in_channels=1, classes=10)
    with pytest.raises(TrilobitError, match=r"digits-mbconv has 3; leave --exits out"):
        exit_candidates(family.space(), family.extreme("largest"))


def test_networks_that_are_trained_on_by_themselves_share_no_blocks() -> None:
    with pytest.raises(TrilobitError, match=r"export\.exits shares the blocks .* leave one out"):
        ExportSection(exits=True, finetune=1)


def test_each_exit_is_scored_through_the_file(net: nn.Module, tmp_path: Path) -> None:
    """The quality of an exit is that of the decoder of its depth, on both parts."""
    (tmp_path / "text.txt").write_bytes(
        np.random.default_rng(0).integers(32, 127, 30_000).astype(np.uint8).tobytes()
    )
    task = read_own_text(f"{tmp_path / 'text.txt'}?length=64", seed=0, cache=None)
    candidate = of_short_texts(FAMILY.extreme("smallest", "int8").genes)
    networks, _ = taken_out(net, candidate)
    by_candidate = dict(
        zip(exit_candidates(FAMILY.space(), candidate).values(), networks.values(), strict=True)
    )
    run = SimpleNamespace(
        family=FAMILY,
        task=task,
        runtime=None,
        config=SimpleNamespace(export=SimpleNamespace(dynamic_batch=True), device=SimpleNamespace(batch=1)),
    )
    builder: Any = SimpleNamespace(run=run, portable=False, network=by_candidate.__getitem__)
    context: Any = SimpleNamespace(candidate=candidate, lowered=networks[4].workload)
    written = build_exits(builder, context)
    assert [(each.blocks, each.output) for each in written.exits] == [
        (2, "exit2.head"),
        (3, "exit3.head"),
        (4, "head"),
    ]
    for each, network in zip(written.exits, networks.values(), strict=True):
        alone = emit(network, batch=None)
        assert each.validation == file_metric(alone, task.validation, task)
        assert each.test == file_metric(alone, task.test, task)
