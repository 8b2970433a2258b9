"""Images in which nothing is to be learned, for what does not depend on learning."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from supernet.families.family import FAMILIES, Family, load_family

WriteImages = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _families_made_once() -> Iterator[None]:
    """Runs that ask for the same registered family share it: it never changes, and what all of its networks
    cost is worked out once, not by every command.
    """
    made: dict[object, Family] = {}

    def load(name: str, **settings: Any) -> Family:
        if name not in FAMILIES:  # a file or a plug-in, which may be another one next time
            return load_family(name, **settings)
        key = (name, FAMILIES[name], *sorted(settings.items()))
        if key not in made:
            made[key] = load_family(name, **settings)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.run.run.load_family", load)
        yield


@pytest.fixture(scope="session", autouse=True)
def _rough_predictions() -> Iterator[None]:
    """What units take that a recorded profile lacks is predicted roughly: how well is the business of
    `tests/predictors`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("predictors.latency.kernels.STEPS", 4)
        yield


@pytest.fixture(scope="session")
def write_images() -> WriteImages:
    """Writes a folder of noisy images, twelve of each class: a pass is one step."""

    def write(folder: Path, classes: tuple[str, ...], *, colour: bool = False, each: int = 12) -> Path:
        shape = (8, 8, 3) if colour else (8, 8)
        for label, name in enumerate(classes):
            (folder / "train" / name).mkdir(parents=True)
            for i in range(each):
                pixels = np.random.default_rng([label, i]).integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels).save(folder / "train" / name / f"{i}.png")
        return folder

    return write
