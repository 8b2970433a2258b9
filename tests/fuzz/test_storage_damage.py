"""`run.db` with flipped bits, cuts and blocks of zeros: opened and used, or refused in one line."""

import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from mutations import damaged_bytes

from hw_profiles.errors import TrilobitError
from nas.objectives import objective
from nas.queue import EvaluationQueue
from nas.store import EvaluationStore
from supernet.family import load_family

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
    """What `nas sample`, `nas search` and `nas worker` do with it."""
    store = opened(path)
    queue = EvaluationQueue(store, grace_s=60)
    fresh, known = (SPACE.candidate(row) for row in SPACE.sample(2, rng=np.random.default_rng([0, 1])))
    store.get(known)
    queue.read()
    queue.enqueue([fresh])
    queue.give_back()
    for claim in queue.claim(2):
        queue.finish(claim, {"accuracy": 0.5, "latency": 1e-4}, {"iqr_s": 0.0})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_storage_is_used_or_refused_in_one_line(
    database: bytes, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    offenders = []
    for i, mutation in enumerate(
        damaged_bytes(database, count=COUNT // 10, rng=np.random.default_rng([seed, 31]))
    ):
        path = tmp_path / f"{i}.db"
        path.write_bytes(mutation.data)
        signal.alarm(30)
        try:
            with warnings.catch_warnings(action="ignore"):
                use(path)
        except TrilobitError as error:
            if "\n" in str(error) or len(str(error)) > 1_000:
                offenders.append(f"{mutation.how}: {error}")
        except BaseException as error:
            offenders.append(f"{mutation.how}: {type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
        path.unlink()
    assert not offenders, "\n".join(offenders[:10])
