"""The first weights of a training: those of a checkpoint.

Only the architecture must be the same; number formats do not matter. What depends on the data is adapted: a
classifier of other classes is learned anew, and a stem that knows colours sees grey as three equal channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from supernet.derive.network import ElasticNet
from supernet.train.checkpoint import Weights, content_hash
from supernet.train.config import NONE as NONE
from supernet.zoo import PREFIX, is_shipped, shipped

LISTED = 10  # names in the error of a checkpoint that does not fit


@dataclass(frozen=True)
class Start:
    """What of a checkpoint is used.

    Attributes:
        renewed: names of the tensors that are learned anew.
        notes: what differs from using all of it as it is; a sentence each.
    """

    renewed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def require_usable(self, epochs: int, origin: str) -> None:
        """Check that weights which are not trained further need no training.

        Raises:
            TrilobitError: no epochs, but something is to be learned anew.
        """
        if self.renewed and epochs == 0:
            raise TrilobitError(
                f"{origin}: {' and '.join(self.renewed)} must be learned for this data, "
                "but train.epochs is 0; give some (--epochs)"
            )


def weights_path(init: str) -> Path:
    """Return the file that `train.init` names: a path, or `shipped:NAME`.

    Raises:
        TrilobitError: nothing of that name is shipped.
    """
    return shipped(init.removeprefix(PREFIX)) if init.startswith(PREFIX) else Path(init)


def identity(init: str) -> str | None:
    """Return what of `train.init` decides the weights: `none`, or the file's content, wherever it is; None
    where the file is gone.
    """
    if init == NONE:
        return NONE
    if init.startswith(PREFIX) and not is_shipped(init.removeprefix(PREFIX)):
        return None
    path = weights_path(init)
    return content_hash(path) if path.is_file() else None


def start_from(net: nn.Module, weights: Weights, classes: Sequence[str], *, origin: str) -> Start:
    """Copy `weights` into `net`, a fresh supernet for data of `classes`.

    Args:
        origin: what errors call the weights.

    Raises:
        TrilobitError: they are of another architecture.
    """
    fresh, stored = net.state_dict(), dict(weights.tensors)
    notes = []
    if weights.unfinished:
        notes.append(f"its training was stopped {weights.unfinished} steps before its end")
    stem = f"{_ends(net)[0]}.weight"
    if stem in stored and _sees_colours(stored[stem], fresh[stem]):
        stored[stem] = stored[stem].sum(dim=1, keepdim=True)
        notes.append("it was trained on colour images: grey counts as three equal channels")
    renewed = _classifier(net) if _other_classes(net, stored, weights, classes) else ()
    if renewed:
        former_classes = f"{len(weights.classes)} others" if weights.classes else "others"
        notes.append(
            f"the classifier is learned anew: the data has {len(classes)} classes, it knew {former_classes}"
        )
    kept = {name: tensor for name, tensor in stored.items() if name not in renewed}
    _require_fit({n: t for n, t in fresh.items() if n not in renewed}, kept, weights, origin)
    net.load_state_dict({**{name: fresh[name] for name in renewed}, **kept})
    return Start(tuple(renewed), tuple(notes))


def _sees_colours(stored: Tensor, fresh: Tensor) -> bool:
    grey = (fresh.shape[0], 3, *fresh.shape[2:])
    return fresh.ndim == 4 and fresh.shape[1] == 1 and tuple(stored.shape) == grey


def _ends(net: nn.Module) -> tuple[str, str]:
    """Return the paths of the layer that reads the image and of the one that gives the logits."""
    if isinstance(net, ElasticNet):
        return net.ends
    raise TypeError(f"{type(net).__name__} is no supernet of a family")


def _classifier(net: nn.Module) -> tuple[str, ...]:
    """Return the names of the tensors of the layer that gives the logits."""
    return tuple(name for name in net.state_dict() if name.rpartition(".")[0] == _ends(net)[1])


def _other_classes(
    net: nn.Module, stored: Mapping[str, Tensor], weights: Weights, classes: Sequence[str]
) -> bool:
    """Return whether the classifier is the only thing that could not know this data: other names, or another
    number of them.
    """
    if weights.classes and weights.classes != tuple(classes):
        return True
    fresh = net.state_dict()
    names = [name for name in _classifier(net) if name in stored]
    inputs_fit = all(stored[name].shape[1:] == fresh[name].shape[1:] for name in names)
    return inputs_fit and any(stored[name].shape[:1] != fresh[name].shape[:1] for name in names)


def _require_fit(
    fresh: Mapping[str, Tensor], stored: Mapping[str, Tensor], weights: Weights, origin: str
) -> None:
    shapes = [{name: tuple(t.shape) for name, t in tensors.items()} for tensors in (stored, fresh)]
    names = [*shapes[1], *(name for name in shapes[0] if name not in shapes[1])]
    differ = [name for name in names if shapes[0].get(name) != shapes[1].get(name)]
    if not differ:
        return
    listed = "; ".join(
        f"{name} {_shape(shapes[0].get(name))} for {_shape(shapes[1].get(name))}" for name in differ[:LISTED]
    )
    more = f" and {len(differ) - LISTED} more" if len(differ) > LISTED else ""
    remedy = f"its space is {weights.space!r}" if weights.space else "use the space it was trained for"
    raise TrilobitError(
        f"{origin}: does not fit this space, {remedy} (--space); "
        f"{len(differ)} of {len(names)} tensors differ, found for wanted: {listed}{more}"
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape)) or "scalar"
