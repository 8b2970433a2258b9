"""Published once-for-all checkpoints (Cai et al. 2020, arXiv:1908.09791) as supernets of ours.

Such a file is `{"state_dict": {name: tensor}}` as torch writes it. It is read without running any code that
may be in it. The names come in several spellings, which `plain_name` makes one; then the function that
`ORIGINAL_NAMES` has for a family gives our name of each tensor.
"""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import torch
from torch import Tensor

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family, load_family

# Space -> "module:function", the function from a name in the file (in the spelling of `plain_name`) to the
# name in `family.supernet(...).state_dict()`, or None for a tensor that the network does not have. The
# classifier must be `classifier`. To import checkpoints of another family, write such a function and add its
# line here.
ORIGINAL_NAMES: Mapping[str, str] = {
    "ofa-mbv3": "supernet.families.ofa_mobile_names:mobilenet_v3",
    "ofa-mbv3-w1.2": "supernet.families.ofa_mobile_names:mobilenet_v3",
    "ofa-proxyless": "supernet.families.ofa_mobile_names:proxyless",
    "ofa-resnet50": "supernet.families.ofa_resnet_names:resnet50",
}
IN_CHANNELS = 3
CLASSIFIER = "classifier.weight"
LISTED = 10  # misfits of one kind that are listed; beyond, they are counted
COUNTER = "num_batches_tracked"  # of batch norm: some files have it, and nothing depends on it

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """How far a file's tensors are those of a space's supernet.

    Attributes:
        space: its name.
        classes: of the file's classifier; 0 where it has none.
        fitted: our names of the tensors that are in both, of one shape.
        missing: our names of those that the file lacks.
        unexpected: the file's names of those that the supernet does not have.
        reshaped: our name -> (shape in the file, shape of ours) where they differ.
    """

    space: str
    classes: int
    fitted: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: Mapping[str, tuple[Shape, Shape]]

    @property
    def whole(self) -> bool:
        """Whether every tensor of the supernet is there and none is left over."""
        return not (self.missing or self.unexpected or self.reshaped)

    def lines(self) -> list[str]:
        """Return what fitted and what did not, to be read; of each kind of misfit the first `LISTED`."""
        reshaped = [
            f"{name} is {_shape(in_file)} in the file, {_shape(in_space)} in the space"
            for name, (in_file, in_space) in self.reshaped.items()
        ]
        out = [f"{self.space}: {len(self.fitted)} tensors fit"]
        for kind, names in (
            ("missing in the file", self.missing),
            ("in the file only", self.unexpected),
            ("of another shape", reshaped),
        ):
            out += [f"  {kind}: {name}" for name in names[:LISTED]]
            out += [f"  {kind}: {len(names) - LISTED} more"] * (len(names) > LISTED)
        return out


@dataclass(frozen=True, eq=False)
class Imported:
    """A checkpoint that fits.

    Attributes:
        family: its space, with the file's number of classes.
        fit: what fitted.
        model: what `family.supernet(...).load_state_dict` takes.
    """

    family: Family
    fit: Fit
    model: Mapping[str, Tensor]


def import_original(
    path: Path, *, space: str | None = None, formats: tuple[str, ...] | None = None
) -> Fit | Imported:
    """Return the checkpoint in `path` as a supernet of `space`; where that is None, of the space that it
    fits best.

    Args:
        formats: number formats of the space, as in `load_family`.

    Returns:
        Only the `Fit` where it is not whole.

    Raises:
        TrilobitError: the file is missing, no file of tensors alone, or holds a number that is not finite; or
            checkpoints of `space` cannot be imported.
    """
    if space is not None and space not in ORIGINAL_NAMES:
        raise TrilobitError(
            f"checkpoints of space {space!r} cannot be imported; known: {', '.join(sorted(ORIGINAL_NAMES))}"
        )
    tensors = read_tensors(path)
    tried = [_match(name, tensors, formats) for name in ([space] if space else ORIGINAL_NAMES)]
    # the first of the best: the one whose supernet has least that the file lacks
    family, fit, model = max(tried, key=lambda attempt: len(attempt[1].fitted) - len(attempt[1].missing))
    return Imported(family, fit, model) if fit.whole else fit


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the file's tensors by name, in one spelling.

    Raises:
        TrilobitError: it is missing, damaged, holds anything but tensors and plain values, or a number that
            is not finite.
    """
    state = _read(path)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state or not all(map(_is_entry, state.items())):
        raise TrilobitError(f"{path}: holds no state_dict, tensors by their names")
    tensors = {plain_name(name): tensor for name, tensor in state.items()}
    if len(tensors) < len(state):
        raise TrilobitError(f"{path}: names some tensors twice, in several spellings")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise TrilobitError(f"{path}: {name} holds values that are not finite")
    return tensors


def _read(path: Path) -> object:
    """Return whatever is in the file, unless that would take running code in it."""
    try:
        if zipfile.is_zipfile(path):  # torch writes checksums, but does not look at them
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise zipfile.BadZipFile(damaged)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrilobitError(f"{path}: no such checkpoint") from None
    except (PermissionError, IsADirectoryError):
        raise
    except Exception:  # torch's reader raises anything at all on a file that is not its own
        raise TrilobitError(
            f"{path}: not a file of tensors alone (damaged, or it holds code, which is never run); "
            "import the original `ofa_...` file, or write its state_dict() with torch.save"
        ) from None


def plain_name(name: str) -> str:
    """Return one spelling of what the published files call a tensor: wrappers that only some versions of the
    code had are left out.

    >>> plain_name("module.blocks.1.mobile_inverted_conv.point_linear.bn.bn.bias")
    'blocks.1.conv.point_linear.bn.bias'
    """
    name = name.removeprefix("module.").replace(".mobile_inverted_conv.", ".conv.")
    for wrapped in ("bn", "linear"):
        name = name.replace(f".{wrapped}.{wrapped}.", f".{wrapped}.")
    return name.replace(".conv.conv.weight", ".conv.weight")


def _match(
    space: str, tensors: Mapping[str, Tensor], formats: tuple[str, ...] | None
) -> tuple[Family, Fit, dict[str, Tensor]]:
    """Return the space with the file's number of classes, how far the file fits, and the tensors that do."""
    rename: Callable[[str], str | None] = resolve_name(ORIGINAL_NAMES[space])
    named = {name: rename(name) for name in tensors}
    renamed = {target: tensors[source] for source, target in named.items() if target is not None}
    classes = len(renamed[CLASSIFIER]) if CLASSIFIER in renamed and renamed[CLASSIFIER].ndim else 0
    family = load_family(space, in_channels=IN_CHANNELS, classes=max(classes, 1), formats=formats)
    expected = family.supernet(rng=np.random.default_rng(0)).state_dict()
    model = {name: tensor for name, tensor in expected.items() if name.endswith(COUNTER)}
    model |= {n: t.float() for n, t in renamed.items() if n in expected and t.shape == expected[n].shape}
    fit = Fit(
        space,
        classes,
        fitted=tuple(name for name in expected if name in model and name in renamed),
        missing=tuple(name for name in expected if name not in renamed and not name.endswith(COUNTER)),
        unexpected=tuple(source for source, target in named.items() if target not in expected),
        reshaped={
            name: (tuple(tensor.shape), tuple(expected[name].shape))
            for name, tensor in renamed.items()
            if name in expected and tensor.shape != expected[name].shape
        },
    )
    return family, fit, model


def _is_entry(item: tuple[object, object]) -> bool:
    name, tensor = item
    return isinstance(name, str) and isinstance(tensor, Tensor)


def _shape(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"
