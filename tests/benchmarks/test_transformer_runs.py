"""What fronts of transformers are compared with: networks whose blocks are alike."""

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.profiles.latency_model import WholeNetwork
from supernet.families.family import load_family

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("name", "channels"), [("digits-vit", 1), ("text-decoder", 256)])
def test_uniform_networks_are_alike_in_all_blocks(
    name: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from transformer_runs import SCALES, uniform_networks

    family = load_family(name, in_channels=channels, classes=channels)
    space, networks = family.space(), uniform_networks(family)
    depths = next(len(c.options) for c in space.choices if c.role == "depth")
    assert 2 * depths * len(family.formats) <= len(networks) <= len(SCALES) * depths * len(family.formats)
    assert {c.id for c in networks} >= {family.extreme("largest", fmt).id for fmt in family.formats}
    for network in networks:
        genes = dict[str, set[int]]()
        alive = space.active(np.array([network.genes], np.int16))[0]
        for choice, gene, lives in zip(space.choices, network.genes, alive, strict=True):
            if lives and choice.kind != "precision" and choice.block is not None:
                genes.setdefault(choice.role, set()).add(gene)
        assert all(len(values) == 1 for values in genes.values())


def test_hypervolume_is_of_the_box_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from transformer_runs import volumes

    found = volumes({"one": np.array([[-0.9, 2.0], [-0.5, 1.0]]), "other": np.array([[-0.7, 3.0]])})
    assert found == {"one": pytest.approx(0.5), "other": pytest.approx(0.0)}


def test_what_no_table_can_beat_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from scenarios import ceilings, measured_twice

    def network(rows: float, measured_s: float, precision: str = "fp32") -> WholeNetwork:
        return WholeNetwork(precision, True, (rows,), (1,), measured_s, 0.0)

    once = [network(k, 1.0 + k) for k in range(20)]
    again = [network(k, 1.0 + (k ^ 1)) for k in range(20)]  # neighbours change places
    first, second = measured_twice([*once, network(0, 9.0, "int8"), *reversed(again)])
    assert sorted(first, key=lambda net: net.sums_s) == once
    assert sorted(second, key=lambda net: net.sums_s) == again
    best = ceilings(first, second)
    assert best["measured again"] == pytest.approx(1 - 2 * 10 / 190)
    assert 0.9 < best["errors of 3% by chance"] < 1
