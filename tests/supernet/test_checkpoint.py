"""Checkpoints: what goes in comes out, and damaged or hostile files are refused in one line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from supernet.train.checkpoint import SCHEMA, load_checkpoint, save_checkpoint

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
