"""RandAugment's operations against Pillow's, image by image, and its draws."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from supernet.data.randaugment import OPERATIONS, STRONGEST, rand_augment

MOVED = {"shear x", "shear y", "translate x", "translate y", "rotate"}
MAGNITUDES = (0, 3, 9, 15, 22, STRONGEST)
ROUNDED = 0.003  # share of pixels that Pillow, in fixed point, takes from the neighbour


def by_pillow(name: str, image: Image.Image, share: float, sign: float) -> Image.Image:
    """The published operation; `share` of its largest strength."""
    width, height = image.size
    signed, affine = share * sign, Image.Transform.AFFINE
    operations: dict[str, Callable[[], Image.Image]] = {
        "identity": lambda: image,
        "shear x": lambda: image.transform(image.size, affine, (1, 0.3 * signed, 0, 0, 1, 0)),
        "shear y": lambda: image.transform(image.size, affine, (1, 0, 0, 0.3 * signed, 1, 0)),
        "translate x": lambda: image.transform(
            image.size, affine, (1, 0, int(150 / 331 * width * share) * sign, 0, 1, 0)
        ),
        "translate y": lambda: image.transform(
            image.size, affine, (1, 0, 0, 0, 1, int(150 / 331 * height * share) * sign)
        ),
        "rotate": lambda: image.rotate(30 * signed),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(1 + 0.9 * signed),
        "color": lambda: ImageEnhance.Color(image).enhance(1 + 0.9 * signed),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(1 + 0.9 * signed),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * signed),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * share)),
        "solarize": lambda: ImageOps.solarize(image, 255 * (1 - share)),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }
    return operations[name]()


def to_pillow(image: Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def from_pillow(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image, np.uint8)).reshape(*image.size[::-1], -1).permute(2, 0, 1)


@pytest.fixture(scope="module", params=[(1, 32, 32), (3, 32, 32), (3, 21, 17)], ids=str)
def images(request: pytest.FixtureRequest) -> Tensor:
    """Noise of full, of little and of no contrast, few levels, and smooth images; no pixel is 0."""
    shape, generator = request.param, torch.Generator().manual_seed(0)
    noise = torch.randint(1, 256, (4, *shape), generator=generator, dtype=torch.uint8)
    smooth = torch.nn.functional.interpolate(torch.rand(4, shape[0], 4, 4, generator=generator), shape[1:])
    few, flat = noise[2:3] // 64 * 50 + 1, torch.full_like(noise[:1], 7)
    return torch.cat([noise[:1], noise[1:2] // 4 + 60, few, flat, (254 * smooth + 1).byte()])


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows(images: Tensor, name: str) -> None:
    for magnitude, sign in product(MAGNITUDES, (-1.0, 1.0)):
        found = OPERATIONS[name](images, magnitude / STRONGEST, torch.full((len(images),), sign))
        expected = torch.stack(
            [from_pillow(by_pillow(name, to_pillow(image), magnitude / STRONGEST, sign)) for image in images]
        )
        if name in MOVED:  # Pillow fills up with 0 what comes from outside, here borders are repeated
            outside = expected == 0
            differ = (found != expected)[~outside].float().mean()
            assert differ <= (ROUNDED if name == "rotate" else 0)
            assert (found > 0).all()
        else:
            assert torch.equal(found, expected)


def test_operations_are_independent_of_the_batch(images: Tensor) -> None:
    signs = torch.tensor([1.0, -1.0]).repeat(len(images) // 2)
    for name, change in OPERATIONS.items():
        alone = [change(image[None], 0.5, sign[None]) for image, sign in zip(images, signs, strict=True)]
        assert torch.equal(change(images, 0.5, signs), torch.cat(alone)), name


def test_draws_are_the_generators_alone(images: Tensor) -> None:
    before, state = images.clone(), torch.random.get_rng_state()
    first, again, other = (
        rand_augment(images, 9, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(images, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)


def test_every_operation_is_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = dict.fromkeys(OPERATIONS, 0)

    def counting(name: str) -> Callable[[Tensor, float, Tensor], Tensor]:
        def change(x: Tensor, strength: float, signs: Tensor) -> Tensor:
            counts[name] += len(x)
            assert 0.3 < float((signs > 0).float().mean()) < 0.7
            return x

        return change

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, counting(name))
    rand_augment(torch.zeros(2800, 1, 4, 4, dtype=torch.uint8), 9, generator=torch.Generator().manual_seed(0))
    assert sum(counts.values()) == 2 * 2800
    assert all(300 < count < 500 for count in counts.values())
