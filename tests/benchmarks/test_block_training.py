"""Networks of one block type each that have as many multiply-adds, and what is reported of them."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        import block_training

        return block_training


def test_each_family_has_one_network_but_for_its_format_and_the_size_of_images(script: ModuleType) -> None:
    for network in (script.Network(*each) for each in script.NETWORKS):
        family = network.of_macs(12.0, 10)
        assert abs(script.mega_macs_of(family) - 12.0) < 6.0
        kinds = {c.name for c in family.space().choices if len(c.options) > 1 and c.kind != "precision"}
        assert kinds == {"resolution"}
        assert {stage.block for stage in family.stages} == {network.block}


def test_no_other_width_comes_closer(script: ModuleType) -> None:
    network = script.Network("pooled", 1)
    family = network.of_macs(26.0, 10)
    others = [network.family(steps, 10) for steps in range(1, 12)]
    distances = [abs(script.mega_macs_of(other) - 26.0) for other in others]
    assert abs(script.mega_macs_of(family) - 26.0) == min(distances)


def test_rows_hold_what_was_learned_and_measured(script: ModuleType) -> None:
    network = script.Network("basic", 2)
    family = network.of_macs(26.0, 10)
    latency = {(network.name,): script.Time(150.0, 2.0)}
    rows = script.rows_of({network: family}, {network: (0.85, 0.1)}, latency)
    assert [(row.unit, row.ours) for row in rows] == [("%", 85.0), ("core-hours", 0.1), ("us", 150.0)]
    assert all(row.task.startswith("basic x2, ") for row in rows)
