"""Images in which nothing is to be learned, for what does not depend on learning."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from alembic.util import pyfiles
from PIL import Image

WriteImages = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _known_migrations() -> Iterator[None]:
    """Optuna runs the files of all its migrations whenever a storage is opened: here once, as they stay what
    they are.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyfiles, "load_module_py", cache(pyfiles.load_module_py))
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
