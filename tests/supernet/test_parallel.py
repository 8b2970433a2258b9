"""Several processes train as one: here with the collective replaced, and with two real ones over gloo."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family
from supernet.tasks.image_classification import ImageClassification
from supernet.train.checkpoint import load_checkpoint
from supernet.train.config import TrainConfig
from supernet.train.loop import train
from supernet.train.parallel import (
    World,
    add_up,
    check_same,
    current_world,
    first_alone,
    joined_world,
    launched_world,
    meet,
)
from supernet.train.world import LAUNCHED

TWO = World(1, 2)
SUMS = 1e-4  # relative: float32 sums in another order, three steps of a young network long


# -- what torchrun says -------------------------------------------------------------------------------


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    with joined_world() as world:
        assert world == launched_world() == current_world() == World()
    assert world.writes


def test_torchrun_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert launched_world() == World(5, 8, 1)
    assert not launched_world().writes
    monkeypatch.delenv("MASTER_PORT")
    with pytest.raises(TrilobitError, match="WORLD_SIZE is set, but not MASTER_PORT; start with torchrun"):
        launched_world()


# -- the collective, replaced -------------------------------------------------------------------------


@pytest.fixture
def mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that always has the same tensors."""
    monkeypatch.setattr(
        dist, "all_reduce", lambda x, op=dist.ReduceOp.SUM: x.mul_(2 if op == dist.ReduceOp.SUM else 1)
    )


@pytest.mark.usefixtures("mirrored")
def test_gradients_and_values_add_up() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 2), nn.Linear(2, 2))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for i, parameter in enumerate(list(net.parameters())[:-1]):  # the last one has no gradient
        parameter.grad = torch.full_like(parameter, i + 1.0)
    parameters = list(net.parameters())
    before: list[Tensor | None] = [None if p.grad is None else p.grad.clone() for p in parameters]
    assert add_up(TWO, parameters, (1.5, 0.0)) == [3.0, 0.0]
    for parameter, gradient in zip(parameters, before, strict=True):
        if gradient is None:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None
            assert torch.equal(parameter.grad, 2 * gradient)


@pytest.mark.usefixtures("mirrored")
def test_the_same_is_the_same() -> None:
    check_same(TWO, "data", 2**52 - 1)


def test_what_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        dist, "all_reduce", lambda x, op: torch.maximum(x, torch.tensor([9.0, -8.0]).double(), out=x)
    )
    check_same(World(), "data", 9)
    with pytest.raises(TrilobitError, match="the processes differ in data; all need the same run folder"):
        check_same(TWO, "data", 9)


def test_a_lost_process_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("[/pytorch/pair.cc:553] Connection closed by peer [::1]:34725. Good luck.\nMore")

    monkeypatch.setattr(dist, "all_reduce", gone)
    expected = (
        r"process 1 of 2 lost another one \(Connection closed by peer \[::1\]:34725\); the same command"
    )
    with pytest.raises(TrilobitError, match=expected):
        meet(TWO)


def test_memory_that_runs_out_is_not_called_a_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dist, "all_reduce", full)
    with pytest.raises(torch.OutOfMemoryError):
        meet(TWO)


@pytest.mark.parametrize(("rank", "expected"), [(0, ["block", "met"]), (1, ["met", "block"])])
def test_the_first_goes_first(monkeypatch: pytest.MonkeyPatch, rank: int, expected: list[str]) -> None:
    happened: list[str] = []
    monkeypatch.setattr(dist, "all_reduce", lambda x: happened.append("met"))
    with first_alone(World(rank, 2)):
        happened.append("block")
    assert happened == expected


# -- two real processes -------------------------------------------------------------------------------

MEMBER = """
import hashlib, json, sys
from pathlib import Path
import torch
from supernet.families.family import load_family
from supernet.train import loop
from supernet.train.config import TrainConfig
from supernet.tasks.loading import load_images
from supernet.train.parallel import joined_world
from dataclasses import replace

path, settings, stop_at = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
data = load_images("digits", seed=0)
data = replace(data, train=data.train[:48], validation=data.validation[:100])
family = load_family("digits-mbconv", in_channels=1, classes=10)
kept = []
begun = loop.start
loop.start = lambda *args, **kwargs: kept.append(begun(*args, **kwargs)) or kept[-1]
with joined_world() as world:
    asked = iter(range(1, 1000))
    stop = lambda: next(asked) == stop_at and not world.writes  # only the second process is told
    steps = list(loop.train(family, data, TrainConfig(**settings), path, seed=1, world=world, stop=stop))
weights = {**kept[0].net.state_dict(), **kept[0].ema.state_dict()}
digest = hashlib.sha256(b"".join(w.numpy().tobytes() for w in weights.values())).hexdigest()
print(json.dumps({"rank": world.rank, "steps": [s.step for s in steps], "loss": steps[-1].loss,
                  "images": steps[-1].images, "digest": digest}))
"""
SETTINGS = {
    "epochs": 3, "batch_size": 8, "optimiser": "sgd", "learning_rate": 0.05, "ema": 0.9, "mixup": 0.2,
    "random_subnets": 1, "flip": True, "cutout": 8, "randaugment": 9, "checkpoint_s": 1e9,
}  # fmt: skip


def free_port() -> int:
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def train_together(path: Path, settings: dict[str, Any], *, stop_at: int = 0) -> list[dict[str, Any]]:
    """What each of two processes says at its end."""
    port = str(free_port())
    members = []
    for rank in ("0", "1"):
        launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
        environment = {**os.environ, **launched, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, "-W", "error", "-c", MEMBER, str(path), json.dumps(settings), str(stop_at)]
        members.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    said = []
    for member in members:
        printed, complaint = member.communicate(timeout=240)
        assert member.returncode == 0, complaint
        said.append(json.loads(printed.splitlines()[-1]))
    return said


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates(
    family: Family, few_digits: ImageClassification, tmp_path: Path
) -> None:
    together, alone = tmp_path / "together.pt", tmp_path / "alone.pt"
    first, second = train_together(together, SETTINGS, stop_at=4)
    assert first["digest"] == second["digest"]  # the same weights, to the bit
    assert first["steps"] == second["steps"] == [1, 2, 3, 4]
    assert first["images"] == 16
    config = TrainConfig(**{**SETTINGS, "accumulate": 2})
    losses = [p.loss for p in islice(train(family, few_digits, config, alone, seed=1), 4)]
    assert first["loss"] == pytest.approx(losses[-1], rel=SUMS)
    # the rest of it together, and from the same checkpoint alone
    fingerprint = family.space().fingerprint
    state = load_checkpoint(together, fingerprint=fingerprint)
    assert state["step"] == 4
    alone.write_bytes(together.read_bytes())
    first, second = train_together(together, SETTINGS)
    assert first["digest"] == second["digest"]
    assert first["steps"] == list(range(5, 10))
    list(train(family, few_digits, config, alone, seed=1))
    expected, found = (load_checkpoint(path, fingerprint=fingerprint) for path in (alone, together))
    for part in ("model", "ema"):
        for name, tensor in expected[part].items():
            torch.testing.assert_close(found[part][name], tensor, rtol=SUMS, atol=SUMS, msg=f"{part} {name}")
    digest = hashlib.sha256(
        b"".join(w.numpy().tobytes() for w in {**found["model"], **found["ema"]}.values())
    ).hexdigest()
    assert digest == first["digest"]  # what the first has written is what both have
