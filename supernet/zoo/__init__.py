"""Supernets that are shipped: compact checkpoints as package data, each with its model card beside it."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from hw_profiles.errors import TrilobitError

ZOO: Mapping[str, str] = {"cifar-pooled": "cifar-pooled.pt", "cifar-mbconv": "cifar-mbconv.pt"}
PREFIX = "shipped:"
FOLDER = Path(str(files("supernet.zoo")))


def shipped(name: str) -> Path:
    """Return the checkpoint that is shipped as `name`.

    Raises:
        TrilobitError: there is none.
    """
    if not is_shipped(name):
        known = ", ".join(sorted(filter(is_shipped, ZOO))) or "none"
        raise TrilobitError(f"no checkpoint {name!r} is shipped; known: {known}")
    return FOLDER / ZOO[name]


def is_shipped(name: str) -> bool:
    """Return whether a checkpoint of this name is shipped, and there."""
    return name in ZOO and (FOLDER / ZOO[name]).is_file()
