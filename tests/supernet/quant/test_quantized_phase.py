"""The quantized phase: exactly resumable, one width after the other, and every width learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family, load_family
from supernet.families.mbconv import MBConvFamily, Stage
from supernet.graph.executor import forward, layered
from supernet.tasks.image_classification import ImageClassification
from supernet.train import quantized
from supernet.train.checkpoint import load_checkpoint, save_checkpoint
from supernet.train.loop import Progress
from supernet.train.policies import find_policies
from supernet.train.quantized import (
    QuantizedPhase,
    first_quantizers,
    load_quantized,
    scale_learning_rate,
    train_quantized,
)

QUICK = QuantizedPhase(epochs=2.0, batch_size=24, probes=1, calibration=32)  # four steps


@pytest.fixture(scope="module")
def tiny() -> MBConvFamily:
    stages = (Stage(8, 1, (1,), (8, 16), (3, 5)), Stage(12, 2, (1, 2), (16,), (3,)))
    formats = ("fp32", "int8", "int4", "int2")
    return MBConvFamily("tiny", (8, 12), 8, stages, 24, 1, 10, formats)


def new_net(family: Family) -> nn.Module:
    """Without the zeros that residual blocks begin with: nothing behind them would learn at first."""
    net = family.supernet(rng=np.random.default_rng(0))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return net


def phase(
    family: Family, data: ImageClassification, path: Path, config: QuantizedPhase = QUICK
) -> list[Progress]:
    return list(train_quantized(family, new_net(family), data, config, path, seed=0))


@pytest.fixture(scope="module")
def whole(
    tiny: MBConvFamily, few_digits: ImageClassification, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("phase") / "whole.pt"
    steps = phase(tiny, few_digits, path)
    assert [p.step for p in steps] == [1, 2, 3, 4]
    assert all(np.isfinite(p.loss) and p.images == 24 for p in steps)
    return path


def test_a_phase_that_was_stopped_ends_with_the_same_numbers(
    tiny: MBConvFamily, few_digits: ImageClassification, whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "stopped.pt"
    often = replace(QUICK, checkpoint_s=0.0)
    running = train_quantized(tiny, new_net(tiny), few_digits, often, path, seed=0)
    next(running)
    running.close()
    assert [p.step for p in phase(tiny, few_digits, path, often)] == [2, 3, 4]
    for one, other in zip(load_quantized(tiny, whole), load_quantized(tiny, path), strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_small_weights_learn_in_proportion(
    tiny: MBConvFamily, few_digits: ImageClassification, tmp_path: Path
) -> None:
    """Of two nets that differ in the scale of a filter before a norm, both change it by the same share."""
    changed = []
    for factor in (1.0, 0.25):
        net = new_net(tiny)
        filters = net.get_parameter("head.weight")
        with torch.no_grad():
            filters.mul_(factor * 0.1 / filters.square().mean().sqrt())
        before = filters.detach().clone()
        list(train_quantized(tiny, net, few_digits, QUICK, tmp_path / f"{factor}.pt", seed=0))
        changed.append(float((filters.detach() - before).norm() / before.norm()))
    assert changed[1] == pytest.approx(changed[0], rel=0.1)


def test_a_phase_that_an_earlier_version_began_is_refused(
    tiny: MBConvFamily, few_digits: ImageClassification, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    stopped = train_quantized(tiny, new_net(tiny), few_digits, replace(QUICK, checkpoint_s=0.0), path, seed=0)
    next(stopped), next(stopped)
    state = load_checkpoint(path, fingerprint=tiny.space().fingerprint)
    state["optimiser"]["param_groups"] = state["optimiser"]["param_groups"][:2]
    save_checkpoint(path, {name: value for name, value in state.items() if name != "schema"})
    with pytest.raises(TrilobitError, match="an earlier version began it; delete it to train anew"):
        phase(tiny, few_digits, path)


def test_a_finished_phase_is_found(tiny: MBConvFamily, few_digits: ImageClassification, whole: Path) -> None:
    (only,) = phase(tiny, few_digits, whole)
    assert (only.step, only.steps) == (4, 4)


def test_weights_and_all_scales_that_were_used_have_moved(
    tiny: MBConvFamily, few_digits: ImageClassification, whole: Path
) -> None:
    net, quantizers = load_quantized(tiny, whole)
    begun = new_net(tiny)
    first = first_quantizers(tiny, begun, few_digits, images=QUICK.calibration, seed=0)
    for trained, fresh in ((net, begun), (quantizers, first)):
        still = [
            name
            for (name, p), q in zip(trained.named_parameters(), fresh.parameters(), strict=True)
            if torch.equal(p, q) and not name.startswith("offsets")  # those only move where it clips
        ]
        assert still == []
    assert not net.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": replace(QUICK, learning_rate=1e-3)}, "had another config; use another run folder"),
        ({"seed": 1}, "had another seed"),
        ({"net": True}, "had another initial"),
    ],
)
def test_another_phase_is_not_continued(
    tiny: MBConvFamily, few_digits: ImageClassification, whole: Path, change: dict, message: str
) -> None:
    net = tiny.supernet(rng=np.random.default_rng(9)) if "net" in change else new_net(tiny)
    config, seed = change.get("config", QUICK), change.get("seed", 0)
    with pytest.raises(TrilobitError, match=message):
        next(train_quantized(tiny, net, few_digits, config, whole, seed=seed))


def test_checkpoints_that_are_not_finished_or_of_fp32_are_refused(
    tiny: MBConvFamily, few_digits: ImageClassification, tmp_path: Path
) -> None:
    path = tmp_path / "begun.pt"
    often = replace(QUICK, checkpoint_s=0.0)
    next(train_quantized(tiny, new_net(tiny), few_digits, often, path, seed=0))
    with pytest.raises(TrilobitError, match="stopped at step 1 of 4; run it again"):
        load_quantized(tiny, path)
    plain = {"space": tiny.space().fingerprint, "step": 1, "steps": 1, "model": {}}
    quantized.save_checkpoint(path, plain)
    with pytest.raises(TrilobitError, match="was trained in fp32 only; run its quantized phase"):
        load_quantized(tiny, path)


def test_every_width_is_applied_before_the_next(
    tiny: MBConvFamily, few_digits: ImageClassification, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each step: the teacher, a network in fp32, one of each width, one of mixed widths; all in turn."""
    applied: list[tuple[float, bool]] = []
    before: list[torch.Tensor] = []
    apply = quantized._apply

    def spy(phase: quantized._Phase, loss: torch.Tensor, *, bits: float, factor: float) -> None:
        weight = phase.net.get_parameter("stem.weight")
        before.append(weight.detach().clone())
        apply(phase, loss, bits=bits, factor=factor)
        applied.append((bits, torch.equal(before[-1], weight)))

    monkeypatch.setattr(quantized, "_apply", spy)
    next(train_quantized(tiny, new_net(tiny), few_digits, QUICK, tmp_path / "x.pt", seed=0))
    assert [bits for bits, _ in applied[:5]] == [8, 8, 8, 4, 2]
    assert len(applied) == 6
    assert 2 <= applied[5][0] <= 8
    assert not any(unchanged for _, unchanged in applied)


def test_a_space_without_integers_or_the_wanted_width_is_refused(
    tiny: MBConvFamily, few_digits: ImageClassification, tmp_path: Path
) -> None:
    plain = load_family("digits-mbconv", in_channels=1, classes=10, formats=("fp32",))
    with pytest.raises(TrilobitError, match="has no integer formats"):
        phase(plain, few_digits, tmp_path / "x.pt")
    with pytest.raises(TrilobitError, match="tiny has weights of 8, 4, 2 bits, not 6"):
        phase(tiny, few_digits, tmp_path / "x.pt", replace(QUICK, widths=(8, 6)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "quantized.epochs must be a number above 0 and at most 10,000, got 0"),
        ({"learning_rate": -1.0}, "quantized.learning_rate must be a number above 0"),
        ({"mixed": -1}, "quantized.mixed must be a whole number from 0"),
        ({"warmup": 1.0}, "below 1, got 1.0"),
        ({"widths": (8, 1)}, r"each item a whole number from 2 to 8, got 1"),
        ({"widths": (4, 4)}, "each once"),
    ],
)
def test_phases_that_cannot_train_are_refused(change: dict, message: str) -> None:
    with pytest.raises(TrilobitError, match=message):
        replace(QUICK, **change)


def test_the_rate_of_scales_falls_with_the_width_and_their_gradients() -> None:
    """ALRS in the clamped form: peak * max(0, 1 - mean)."""
    none: list[torch.Tensor] = []
    rates = {bits: scale_learning_rate(1.0, bits, none) for bits in (8, 7, 6, 5, 4, 2)}
    assert rates == pytest.approx({8: 1.0, 7: 0.5, 6: 0.1, 5: 0.05, 4: 0.01, 2: 0.001})
    gradients = [torch.tensor([0.1, -0.4]), torch.tensor(0.2), torch.tensor([9.0])]
    assert scale_learning_rate(2.0, 8, gradients) == pytest.approx(2.0 * (1 - (0.4 + 0.2 + 1.0) / 3))
    assert scale_learning_rate(1.0, 8, [torch.tensor(5.0)]) == 0


def test_what_it_leaves_runs(tiny: MBConvFamily, whole: Path) -> None:
    net, quantizers = load_quantized(tiny, whole)
    policies = find_policies(tiny)
    space = tiny.space()
    for bits in (8, 4, 2):
        genome = policies.uniform(policies.base, bits, rng=np.random.default_rng(0))
        work = tiny.workload(space.candidate(space.canonical(genome[None])[0]))
        logits = forward(layered(net), quantizers, work, torch.zeros(2, *work.in_shape))
        assert logits.shape == (2, 10)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("number_format", ["int8", "int4", "int2"])
def test_one_integer_format_is_enough(
    number_format: str, few_digits: ImageClassification, tmp_path: Path
) -> None:
    stages = (Stage(8, 1, (1,), (8, 16), (3, 5)), Stage(12, 2, (1, 2), (16,), (3,)))
    single = MBConvFamily("tiny", (8, 12), 8, stages, 24, 1, 10, ("fp32", number_format))
    assert find_policies(single).widths == (int(number_format.removeprefix("int")),)
    often = replace(QUICK, mixed=2)
    steps = phase(single, few_digits, tmp_path / "single.pt", often)
    assert [p.step for p in steps] == [1, 2, 3, 4]
    assert all(np.isfinite(p.loss) for p in steps)
