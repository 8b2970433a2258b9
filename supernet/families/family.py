"""What a family of networks must offer, and the registries of families and number formats."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.workload import Workload
from hw_profiles.registry import load
from supernet.formats.loading import QuantPolicy, parse_precision
from supernet.graph.subnet import Subnet
from supernet.registry import FAMILIES as FAMILIES
from supernet.registry import FILE as FILE
from supernet.space.space import Candidate, SearchSpace


@dataclass(frozen=True)
class CostTerm:
    """One additive part of a network's cost, and the few genes that decide it.

    Attributes:
        columns: columns of the genome matrix it depends on.
        layers: from the genes in those columns to the layers they give; empty where the part is absent.
    """

    columns: tuple[int, ...]
    layers: Callable[[tuple[int, ...]], tuple[Layer, ...]]


@dataclass(frozen=True)
class PeakTerm:
    """One part of a network between two moments when a single tensor is alive, and the few genes that decide
    its memory: a network needs as much as its largest part.

    Attributes:
        columns: columns of the genome matrix it depends on.
        part: from the genes in those columns to the part as a network by itself, which reads the tensor that
            the part before gives; None where the part is absent.
    """

    columns: tuple[int, ...]
    part: Callable[[tuple[int, ...]], Workload | None]


class ElasticNet(Protocol):
    """A supernet: `forward(x, arch)` with no stored active state."""

    def __call__(self, x: Tensor, arch: Any) -> Tensor: ...


class Family(Protocol):
    """A family of networks. Everything but `supernet` and `extract` is arithmetic: no module is built."""

    @property
    def name(self) -> str:
        """Name of the space, as registered."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of the input image."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...

    def space(self) -> SearchSpace:
        """The choices. The same family always gives a space of the same fingerprint."""
        ...

    def arch(self, candidate: Candidate) -> Any:
        """The family's own typed, frozen architecture."""
        ...

    def policy(self, candidate: Candidate) -> QuantPolicy:
        """Layer name -> precision, living layers only."""
        ...

    def workload(self, candidate: Candidate) -> Workload:
        """What runs on the device, format conversions included."""
        ...

    def plain_workload(self, arch: Any) -> Workload:
        """The workload of an architecture in fp32 throughout."""
        ...

    def terms(self) -> tuple[CostTerm, ...]:
        """Parts whose layers, over all terms, are exactly the layers of `workload(candidate)`."""
        ...

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        """Parts of which the largest needs, in memory, what `workload(candidate)` needs."""
        ...

    def resolution(self, candidate: Candidate) -> int:
        """Input height and width in pixels."""
        ...

    def corners(self) -> Mapping[str, Candidate]:
        """`smallest` and `largest` architecture, each at every uniform format: `smallest/int8`,
        `largest/fp32`...
        """
        ...

    def supernet(self, *, rng: np.random.Generator) -> nn.Module:
        """A freshly initialised elastic network; `forward(x, arch)`."""
        ...

    def extract(self, net: nn.Module, candidate: Candidate) -> Subnet:
        """A network of its own with copies of the candidate's weights and batch-norm statistics, fp32."""
        ...


def resolutions(family: Family) -> tuple[int, ...]:
    """Return the sizes in pixels that the largest and the smallest networks see images at, ascending."""
    return tuple(sorted({family.resolution(corner) for corner in family.corners().values()}))


def load_family(
    name: str, *, in_channels: int, classes: int, formats: tuple[str, ...] | None = None
) -> Family:
    """The family registered as `name`, for images of `in_channels` and `classes` classes; a name that ends in
    `.json` is that of a file which holds a space.

    Args:
        formats: the number formats to choose from for every layer, as `parse_precision` reads them; None
            takes the family's own. fp32, where it is among them, becomes the first.

    Raises:
        TrilobitError: no such family, file or format, or a format twice.
    """
    if name.endswith(FILE):
        make = partial(resolve_name("supernet.families.staged_file:space_in_file"), name)
    else:
        make = load("trilobit.spaces", FAMILIES, name)
    if formats is None:
        family: Family = make(in_channels=in_channels, classes=classes)
        return family
    precisions = {parse_precision(fmt) for fmt in formats}
    if not formats or len(precisions) < len(formats):
        raise TrilobitError(
            f"a space needs at least one number format, each once; got {', '.join(formats)!r}"
        )
    ordered = tuple(sorted(formats, key=lambda fmt: fmt != FP32))
    chosen: Family = make(in_channels=in_channels, classes=classes, formats=ordered)
    return chosen
