"""What `device` and `amp` mean on machines with and without GPUs; on a real one with `-m device`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hw_profiles.errors import TrilobitError
from supernet.data.augment import cutout, mixup, shift_and_flip
from supernet.data.randaugment import rand_augment
from supernet.families.family import Family
from supernet.tasks.image_classification import ImageClassification
from supernet.train.config import TrainConfig
from supernet.train.loop import load_supernet, train
from supernet.train.parallel import World
from supernet.train.placement import choose_placement

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as choosing goes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_it_is_fp32_on_the_cpu() -> None:
    for device in ("auto", "cpu"):
        placement = choose_placement(TrainConfig(device=device), World())
        assert (placement.device, placement.dtype) == (CPU, None)
    with pytest.raises(TrilobitError, match=r"train.device = 'cuda', but torch \S+ sees no GPU here"):
        choose_placement(TrainConfig(device="cuda"), World())


@pytest.mark.usefixtures("two_gpus")
def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for device in ("auto", "cuda"):
        placement = choose_placement(TrainConfig(device=device), World(5, 8, 1))
        assert (placement.device, placement.dtype) == (torch.device("cuda", 1), torch.bfloat16)
    expected = "process 3 on this machine has no GPU of its own, there are 2; start torchrun with"
    with pytest.raises(TrilobitError, match=expected):
        choose_placement(TrainConfig(), World(2, 3, 2))
    assert choose_placement(TrainConfig(device="cpu"), World(2, 3, 2)).device == CPU
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert choose_placement(TrainConfig(), World()).dtype == torch.float16


@pytest.mark.parametrize(("amp", "dtype"), [("off", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
@pytest.mark.parametrize("gpus", ["no_gpu", "two_gpus"])
def test_types_are_what_was_asked_for(
    request: pytest.FixtureRequest, gpus: str, amp: str, dtype: torch.dtype | None
) -> None:
    request.getfixturevalue(gpus)
    assert choose_placement(TrainConfig(amp=amp), World()).dtype == dtype


def test_only_fp16_is_scaled() -> None:
    enabled = [
        choose_placement(TrainConfig(device="cpu", amp=amp), World()).scaler().is_enabled()
        for amp in ("auto", "off", "bf16", "fp16")
    ]
    assert enabled == [False, False, False, True]


def test_autocast_computes_in_the_type() -> None:
    x = torch.ones(2, 2)
    for amp, dtype in (("off", torch.float32), ("bf16", torch.bfloat16)):
        with choose_placement(TrainConfig(device="cpu", amp=amp), World()).autocast():
            assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32


# -- on a GPU -----------------------------------------------------------------------------------------


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device("cuda")


@pytest.mark.device
def test_augmentation_is_the_same_on_a_gpu(few_digits: ImageClassification, cuda: torch.device) -> None:
    pixels = torch.from_numpy(few_digits.train.pixels).permute(0, 3, 1, 2)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    here, there = (
        rand_augment(pixels.to(device), 9, generator=generator)
        for device, generator in zip((CPU, cuda), draws, strict=True)
    )
    assert (here != there.cpu()).float().mean() < 1e-3  # float32 results next to an integer may be cut off
    x, targets = here.float() - 128, torch.eye(len(here))
    here, there = (
        cutout(shift_and_flip(x.to(device), generator=generator, flip=True, pad=4), 8, generator=generator)
        for device, generator in zip((CPU, cuda), draws, strict=True)
    )
    assert torch.equal(here, there.cpu())
    mixed, expected = (
        mixup(one, targets.to(one.device), 0.2, rng=np.random.default_rng(0))[0].cpu()
        for one in (there, here)
    )
    torch.testing.assert_close(mixed, expected)


@pytest.mark.device
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_training_on_a_gpu(
    family: Family, few_digits: ImageClassification, cuda: torch.device, tmp_path: Path, amp: str
) -> None:
    config = TrainConfig(epochs=8, batch_size=16, ema=0.9, mixup=0.1, randaugment=5, evaluate_every=4)
    here, there = tmp_path / "here.pt", tmp_path / "there.pt"
    expected = next(train(family, few_digits, replace(config, device="cpu"), here, seed=1))
    steps = list(train(family, few_digits, replace(config, device="cuda", amp=amp), there, seed=1))
    assert steps[0].loss == pytest.approx(expected.loss, rel=0.02)
    assert steps[-1].loss < steps[0].loss
    assert sorted(steps[-1].accuracies) == ["largest", "smallest"]
    assert all(parameter.device == CPU for parameter in load_supernet(family, there).parameters())
