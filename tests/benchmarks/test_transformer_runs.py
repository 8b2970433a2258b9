"""What fronts of transformers are compared with: networks whose blocks are alike."""

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.profiles.latency_model import KINDS, WholeNetwork
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


def test_errors_of_a_table_stand_beside_what_no_table_can_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from scenarios import SPREAD, error_rows

    rng, kinds = np.random.default_rng(0), len(KINDS)

    def network(k: int, held_out: bool) -> WholeNetwork:
        sums = tuple(rng.uniform(1, 2, kinds)) if k < 0 else tuple(np.full(kinds, 1.0 + k))
        return WholeNetwork("int8", held_out, sums, (1,) * kinds, sum(sums) * rng.uniform(0.99, 1.01), 0.0)

    fitted = [network(-1, held_out=False) for _ in range(8)]
    held = [network(k, held_out=True) for k in range(6)] + [network(k, held_out=True) for k in range(6)]
    rows = error_rows("made up", [*fitted, *held])
    assert [row.metric for row in rows] == ["MAPE", "Kendall tau", SPREAD] * 2
    assert all("6 networks" in row.task for row in rows)
    assert rows[1].peers["measured again"] == pytest.approx(1)
    assert rows[1].peers["errors of 3% by chance"] == pytest.approx(1)
    assert rows[0].ours < 0.02
