"""Blocks that learn what a teacher's stage does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nas.design.base import Base, DistillationConfig, base_of
from nas.design.distillation import (
    FLAT,
    BlockDistillation,
    StageTensors,
    losses,
    noise_to_signal,
    teacher_tensors,
)
from supernet.families.family import load_family
from supernet.graph.subnet import Subnet, recalibrate
from supernet.layers.elastic import ElasticConvNorm

PRACTICE = DistillationConfig(steps=40, batch_size=16, samples=2, images=64, judged=32)


@pytest.fixture(scope="module")
def base() -> Base:
    return base_of(load_family("digits-mbconv", in_channels=1, classes=10), ("fused", "separable"))


def images(n: int, size: int = 28) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(n, 1, 7, 7, generator=generator)
    return torch.nn.functional.interpolate(small, (size, size), mode="bilinear")


@pytest.fixture(scope="module")
def teacher() -> Subnet:
    family = load_family("digits-mbconv", in_channels=1, classes=10)
    net = family.supernet(rng=np.random.default_rng(0))
    for module in net.modules():
        if isinstance(module, ElasticConvNorm):
            torch.nn.init.ones_(module.norm.weight)  # so that blocks are more than their shortcuts
    subnet = family.extract(net, family.extremes()["largest/fp32"])
    recalibrate(subnet, [images(96)])
    return subnet


@pytest.fixture(scope="module")
def distillation(base: Base, teacher: Subnet) -> BlockDistillation:
    taught = teacher_tensors(teacher, images(96), PRACTICE.judged, stages=3, resolutions=(28,))
    return BlockDistillation(base, 1, "fused", {28: taught[1, 28]}, PRACTICE, seed=0)


def test_tensors_are_what_the_teachers_stages_read_and_give(teacher: Subnet) -> None:
    found = teacher_tensors(teacher, images(96), 32, stages=3, resolutions=(28, 14))
    assert sorted(found) == [(s, r) for s in range(3) for r in (14, 28)]
    shapes = [tuple(found[s, 28].targets.shape[1:]) for s in range(3)]
    assert shapes == [(8, 14, 14), (16, 7, 7), (32, 4, 4)]
    torch.testing.assert_close(found[0, 28].targets, found[1, 28].inputs)
    first = found[0, 28]
    assert (len(first.inputs), len(first.held_out_inputs)) == (64, 32)
    torch.testing.assert_close(first.targets.mean((0, 2, 3)), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(first.targets.std((0, 2, 3)), torch.ones(8), atol=1e-3, rtol=0)
    with torch.no_grad():
        names = teacher.workload.names
        tensor = teacher.tensors(images(96))[max(i for i, n in enumerate(names) if n.startswith("s0."))]
    flat = torch.stack((tensor[:64, 3].flatten(), first.targets[:, 3].flatten()))
    assert float(torch.corrcoef(flat)[0, 1]) == pytest.approx(1, abs=1e-4)


def test_a_staged_teacher_is_read_after_the_activations_of_its_stages() -> None:
    family = load_family("cifar-pooled", in_channels=3, classes=10)
    net = family.supernet(rng=np.random.default_rng(0))
    subnet = family.extract(net, family.extreme("largest"))
    seen = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    recalibrate(subnet, [seen])
    taught = teacher_tensors(subnet, seen, 8, stages=3, resolutions=(32,))
    shapes = [tuple(taught[s, 32].targets.shape) for s in range(3)]
    assert shapes == [(16, 48, 16, 16), (16, 128, 8, 8), (16, 192, 4, 4)]
    for stage in taught.values():  # what a ReLU gives has many equal least values
        least = stage.targets.amin((0, 2, 3), keepdim=True)
        assert float((stage.targets == least).float().mean()) > 0.2


def test_noise_to_signal_is_the_error_over_the_teachers_variance() -> None:
    rng = np.random.default_rng(0)
    found, wanted = (rng.normal(0, 2, (3, 4, 5, 5)) for _ in range(2))
    ratios = [
        [((found[n, c] - wanted[n, c]) ** 2).mean() / wanted[n, c].var() for c in range(4)] for n in range(3)
    ]
    ours = noise_to_signal(torch.from_numpy(found), torch.from_numpy(wanted))
    assert float(ours) == pytest.approx(np.mean(ratios))
    flat = torch.zeros(1, 1, 4, 4)  # no variance at all
    assert float(noise_to_signal(flat + 1, flat)) == pytest.approx(1 / FLAT)
    assert float(noise_to_signal(flat, flat)) == 0


@pytest.mark.slow
def test_an_imitator_learns(distillation: BlockDistillation) -> None:
    net = distillation.new_student()
    before = [loss for loss in distillation.evaluate(net)]
    told = [*distillation.train(net)]
    after = [loss for loss in distillation.evaluate(net)]
    assert len(told) == PRACTICE.steps
    assert len(after) == len(distillation.sub_stages) == 6
    assert np.mean(told[-5:]) < 0.5 * told[0]
    assert np.mean(after) < 0.7 * np.mean(before)


@pytest.mark.parametrize("steps", [1, 10])  # 10: a rise of a tenth would have no length
def test_any_number_of_steps_can_be_trained(distillation: BlockDistillation, steps: int) -> None:
    assert len([*distillation.train(distillation.new_student(), steps=steps)]) == steps


def test_int8_costs_little(distillation: BlockDistillation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulated integers are those of the trained weights: a wrong scale would be far off."""
    net = distillation.new_student()
    [*distillation.train(net, steps=20)]
    int8 = np.array([*distillation.evaluate(net)])
    fp16 = Fp32(distillation, net).losses()
    np.testing.assert_allclose(int8, fp16, rtol=0.1)


class Fp32:
    """The judgement by hand, without any rounding."""

    def __init__(self, distillation: BlockDistillation, net: torch.nn.Module) -> None:
        self.distillation, self.net = distillation, net

    def losses(self) -> list[float]:
        noise = []
        for part in self.distillation.sub_stages:
            stage = self.distillation.tensors[part.resolution]
            alone = self.distillation.new_student()
            alone.load_state_dict(self.net.state_dict())
            seen = stage.inputs[: 2 * PRACTICE.judged]
            with torch.no_grad():
                together = torch.cat((stage.held_out_inputs, seen))
                alone.train()  # the batch's own statistics: nearly those of the images learned from
                y = alone(together, part)[: PRACTICE.judged]
                noise.append(float(noise_to_signal(y, stage.held_out_targets)))
        return noise


def test_losses_are_the_same_for_a_seed_and_tell_how_far_they_are(distillation: BlockDistillation) -> None:
    quick, told = replace(distillation, practice=replace(PRACTICE, steps=2)), []
    first, again = (losses(quick, lambda: told.append(1)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(told) == 2 * (2 + 6)
    other = losses(replace(quick, seed=1), lambda: None)
    assert not np.array_equal(first, other)


def test_every_resolution_is_learned(base: Base) -> None:
    """Steps draw a resolution each; a stage that is nothing but noise cannot be learned."""
    generator = torch.Generator().manual_seed(0)

    def stage(size: int) -> StageTensors:
        return StageTensors(*(torch.randn(40, c, size, size, generator=generator) for c in (8, 8, 8, 8)))

    wide = replace(base, resolutions=(28, 32))
    one = BlockDistillation(
        wide, 0, "separable", {28: stage(14), 32: stage(16)}, replace(PRACTICE, steps=6), 0
    )
    assert {part.resolution for part in one.sub_stages} == {28, 32}
    assert np.isfinite([*one.train(one.new_student())]).all()
