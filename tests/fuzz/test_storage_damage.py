"""`run.db` with flipped bits, cuts and blocks of zeros: opened and used, or refused in one line."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nas.evaluation.store import EvaluationStore
from nas.search.objectives import objective
from supernet.families.family import load_family
from tests.fuzz.mutations import Attempt, damaged_bytes, require_sound, try_out

SPACE = load_family("digits-mbconv", in_channels=1, classes=10).space()
OBJECTIVES = [objective("accuracy"), objective("latency")]
COUNT = 1_000


def opened(path: Path) -> EvaluationStore:
    return EvaluationStore(f"sqlite:///{path}", "measured", SPACE, OBJECTIVES, decisions=True)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("storage") / "run.db"
    store = opened(path)
    for genome in SPACE.sample(6, rng=np.random.default_rng(0)):
        store.add(SPACE.candidate(genome), {"accuracy": 0.9, "latency": 1e-4}, {"iqr_s": 0.0, "error": None})
    return path.read_bytes()


def use(path: Path) -> None:
    """What `nas sample` and `nas search` do with it."""
    store = opened(path)
    fresh, known = (SPACE.candidate(row) for row in SPACE.sample(2, rng=np.random.default_rng([0, 1])))
    store.get(known)
    store.trials()
    store.add(fresh, {"accuracy": 0.5, "latency": 1e-4}, {"iqr_s": 0.0})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_storage_is_used_or_refused_in_one_line(database: bytes, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "run.db"

    def attempts() -> Iterator[Attempt]:
        rng = np.random.default_rng([seed, 31])
        for mutation in damaged_bytes(database, count=COUNT // 10, rng=rng):
            for leftover in tmp_path.iterdir():
                leftover.unlink()
            path.write_bytes(mutation.data)
            yield try_out(mutation.how, lambda: use(path))

    require_sound(attempts())
