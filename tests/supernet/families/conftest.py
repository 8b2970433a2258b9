"""The original once-for-all code, where it is installed: `PYTHONPATH=FOLDER pytest ...` after
`pip install --no-deps --target FOLDER ofa`. It is only compared with, never needed.
"""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

TRANSFORMS = (
    "torchvision.transforms"  # imported by the original for its data loaders, which are not used here
)


@pytest.fixture(scope="session")
def once_for_all() -> Iterator[ModuleType]:
    """The original's elastic networks."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            import torchvision  # noqa: F401
        except Exception:  # absent, or built for another torch
            for name in ("torchvision", TRANSFORMS, f"{TRANSFORMS}.functional"):
                patch.setitem(sys.modules, name, ModuleType(name))
            sys.modules["torchvision"].transforms = sys.modules[TRANSFORMS]
            sys.modules[TRANSFORMS].functional = sys.modules[f"{TRANSFORMS}.functional"]
            sys.modules[TRANSFORMS].RandomResizedCrop = object
        yield pytest.importorskip(
            "ofa.imagenet_classification.elastic_nn.networks", reason="the original code is not installed"
        )
