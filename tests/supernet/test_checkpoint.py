"""Checkpoints: what goes in comes out, and damaged or hostile files are refused in one line."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from supernet.train.checkpoint import (
    SCHEMA,
    WEIGHTS,
    Weights,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)

STATE = {"space": "x", "step": 3, "model": {"weights": torch.arange(1000.0)}, "config": {"epochs": 2}}


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "supernet" / "last.pt"
    save_checkpoint(path, STATE)
    return path


def test_state_comes_back(saved: Path) -> None:
    state = load_checkpoint(saved, fingerprint="x")
    assert state.pop("schema") == SCHEMA
    assert torch.equal(state.pop("model")["weights"], STATE["model"]["weights"])
    assert state == {"space": "x", "step": 3, "config": {"epochs": 2}}
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]  # nothing half-written beside it


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99, 0.999])
def test_truncated_files_are_refused(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(TrilobitError, match="not a checkpoint this version can read"):
        load_checkpoint(saved, fingerprint="x")


@pytest.mark.parametrize("start", [b"", b"\x80", b"\x80\x02", b"PK\x03\x04", b"c", b"{"])
def test_other_files_are_refused(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "last.pt"
    for seed in range(20):
        path.write_bytes(start + np.random.default_rng(seed).bytes(300))
        with pytest.raises(TrilobitError, match="not a checkpoint this version can read"):
            load_checkpoint(path, fingerprint="x")


def test_changed_bytes_are_noticed(saved: Path) -> None:
    whole = bytearray(saved.read_bytes())
    middle = whole.index(STATE["model"]["weights"].numpy().tobytes()) + 2000
    whole[middle] ^= 0xFF
    saved.write_bytes(whole)
    with pytest.raises(TrilobitError, match="not a checkpoint this version can read"):
        load_checkpoint(saved, fingerprint="x")


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, writer: str) -> None:
    path, sprung = tmp_path / "last.pt", tmp_path / "sprung"
    state = {"schema": SCHEMA, "space": "x", "model": Trap(sprung)}
    if writer == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    with pytest.raises(TrilobitError, match="more than tensors in it"):
        load_checkpoint(path, fingerprint="x")
    assert not sprung.exists()
    if writer == "torch":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert sprung.exists()  # the trap works


def test_missing_and_foreign_files_say_what_to_do(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(TrilobitError, match=r"no such checkpoint; run `nas train`"):
        load_checkpoint(tmp_path / "none.pt", fingerprint="x")
    with pytest.raises(TrilobitError, match="trained for space x, not y"):
        load_checkpoint(saved, fingerprint="y")
    torch.save({"schema": "supernet/0"}, saved)
    with pytest.raises(TrilobitError, match="schema 'supernet/0', but this version reads 'supernet/1'"):
        load_checkpoint(saved, fingerprint="x")
    torch.save([1], saved)
    with pytest.raises(TrilobitError, match="schema 'list'"):
        load_checkpoint(saved, fingerprint="x")


# -- the compact form -----------------------------------------------------------------------------

COMPACT = Weights(
    {
        "filter": torch.linspace(-1, 1, 6000).reshape(60, 100),
        "bias": torch.linspace(-1, 1, 60),
        "counter": torch.tensor(3),
    },
    space="digits-mbconv",
    classes=("one", "two"),
    data="0123",
    metadata={"seed": 3, "hours": 1.5, "curve": [[1, 2.0]], "data": {"mean": [0.5]}},
)


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    path = tmp_path / "compact.pt"
    save_weights(path, COMPACT)
    return path


def test_the_compact_form_comes_back(compact: Path) -> None:
    found = load_weights(compact)
    assert {**vars(found), "tensors": None} == {**vars(COMPACT), "tensors": None}
    assert {name: tensor.dtype for name, tensor in found.tensors.items()} == {
        "filter": torch.float32,
        "bias": torch.float32,
        "counter": torch.int64,
    }
    assert torch.equal(found.tensors["bias"], COMPACT.tensors["bias"])  # vectors are exact
    torch.testing.assert_close(found.tensors["filter"], COMPACT.tensors["filter"], rtol=2**-11, atol=1e-7)


def test_the_compact_form_takes_two_bytes_a_weight(compact: Path) -> None:
    save_weights(compact, replace(COMPACT, tensors={"filter": torch.rand(500, 1000)}))
    assert compact.stat().st_size < 2.01 * 500_000


def test_what_was_compact_stays_the_same(compact: Path, tmp_path: Path) -> None:
    first = load_weights(compact)
    save_weights(tmp_path / "again.pt", first)
    again = load_weights(tmp_path / "again.pt")
    assert all(torch.equal(again.tensors[name], first.tensors[name]) for name in first.tensors)


def test_weights_of_a_training_are_read(saved: Path) -> None:
    save_checkpoint(saved, {**STATE, "steps": 5, "name": "digits-mbconv", "classes": ["a"], "data": "01"})
    found = load_weights(saved)
    assert (found.space, found.classes, found.data, found.unfinished) == ("digits-mbconv", ("a",), "01", 2)
    assert torch.equal(found.tensors["weights"], STATE["model"]["weights"])


def test_averages_go_before_the_last_weights(saved: Path) -> None:
    average = {"module.weights": torch.zeros(3), "n_averaged": torch.tensor(7)}
    save_checkpoint(saved, {**STATE, "steps": 3, "ema": average})
    assert load_weights(saved).tensors.keys() == {"weights"}
    assert not load_weights(saved).tensors["weights"].any()


class Module(torch.nn.Linear):
    """A network that somebody saved whole, which runs code when it is read."""


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.mkdir(), r"a folder; give the file, such as .*last\.pt"),
        (lambda path: None, "no such checkpoint"),
        (
            lambda path: path.write_bytes(np.random.default_rng(0).bytes(3000)),
            "damaged, or more than tensors",
        ),
        (lambda path: path.write_bytes(b""), "damaged, or more than tensors"),
        (lambda path: torch.save(Module(3, 4), path), "damaged, or more than tensors"),
        (
            lambda path: torch.save({"state_dict": {}}, path),
            "schema None, but this version reads 'supernet/1'",
        ),
        (lambda path: torch.save({"schema": "weights/9"}, path), "reads 'supernet/1' or 'weights/1'"),
        (
            lambda path: torch.save({"schema": WEIGHTS, "space": "x"}, path),
            "not a whole weights/1 checkpoint",
        ),
        (lambda path: torch.save({"schema": SCHEMA, "model": 3}, path), "not a whole supernet/1 checkpoint"),
        (
            lambda path: torch.save({"schema": SCHEMA, "model": {"a": 3}, "step": 1, "steps": 1}, path),
            "not a whole supernet/1 checkpoint",
        ),
        (
            lambda path: torch.save({"schema": WEIGHTS, "space": "x", "model": {}}, path),
            "not those it was written with",
        ),
    ],
)
def test_what_holds_no_weights_is_refused(
    tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(TrilobitError, match=message):
        load_weights(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_compact_files_are_refused(compact: Path, share: float) -> None:
    whole = compact.read_bytes()
    compact.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(TrilobitError, match="damaged, or more than tensors"):
        load_weights(compact)


def test_code_among_weights_is_not_run(tmp_path: Path) -> None:
    path, sprung = tmp_path / "weights.pt", tmp_path / "sprung"
    torch.save({"schema": WEIGHTS, "space": "x", "model": {"a": Trap(sprung)}}, path)
    with pytest.raises(TrilobitError, match="more than tensors in it"):
        load_weights(path)
    assert not sprung.exists()
