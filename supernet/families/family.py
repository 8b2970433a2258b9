"""A family of networks: its choices and one `build`. Everything else follows from these two."""

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property, partial
from pkgutil import resolve_name
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.cache import scenario_workload
from hw_profiles.graph.counts import params
from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.scenario import SEQUENCE, Scenario, decoder_scenarios
from hw_profiles.graph.workload import Workload
from hw_profiles.registry import load
from supernet.derive import network
from supernet.derive.choosing import Choose
from supernet.derive.costs import CostTerm as CostTerm
from supernet.derive.costs import cost_terms
from supernet.derive.inputs import ID_TYPE, ImageInput, NetworkInput, TokenInput
from supernet.derive.inputs import Answers as Answers
from supernet.derive.inputs import Reads as Reads
from supernet.derive.memory import PeakTerm as PeakTerm
from supernet.derive.memory import peak_terms
from supernet.derive.scenarios import scenario_trace
from supernet.derive.trace import Trace, TracedChoose
from supernet.formats.loading import Precision, QuantPolicy, parse_precision
from supernet.graph.subnet import Subnet
from supernet.registry import FAMILIES as FAMILIES
from supernet.registry import FILE as FILE
from supernet.space.space import Candidate, Choice, Option, SearchSpace

DEFAULT_FORMATS = (FP32, "int8")


Size = Literal["smallest", "largest"]
SIZES: Mapping[Size, int] = {"smallest": 0, "largest": -1}  # -> which option of a choice


class Extreme(str):
    """One of the extreme networks of a space: as text `largest/int8`.

    Attributes:
        size: of its architecture.
        number_format: that it is in throughout.
    """

    size: Size
    number_format: str

    def __new__(cls, size: Size, number_format: str) -> "Extreme":
        self = super().__new__(cls, f"{size}/{number_format}")
        self.size, self.number_format = size, number_format
        return self


@dataclass(frozen=True)
class Architecture:
    """A network without its number formats.

    Attributes:
        resolution: input height and width in pixels, or how many tokens are read.
        options: active choices by name, but for those of number formats.
        stages: the same by stage and block, from role to option; blocks that are not there are left out.
        workload: in fp32 throughout.
    """

    resolution: int
    options: Mapping[str, Option]
    stages: tuple[tuple[Mapping[str, Option], ...], ...]
    workload: Workload = field(repr=False)

    @cached_property
    def lowered(self) -> Workload:
        """The layers that run."""
        return lower(self.workload)

    def document(self) -> dict[str, Any]:
        """Return it as files hold it."""
        tokens = self.workload.feeds[0].type.format == ID_TYPE
        size = TokenInput.choice if tokens else ImageInput.choice
        return {size: self.resolution, "options": dict(self.options), "stages": self.stages}


class Family(ABC):
    """A family of networks: subclasses, frozen dataclasses, say `choices` and `build`.

    Attributes:
        answers: what a network says: the class of an example, that of each token, or the token that follows
            each.
        name: of the space, as registered.
        in_channels: channels of the input image; of tokens the size of the vocabulary.
        classes: number of classes.
        formats: number formats to choose from, as `parse_precision` reads them.
        eps: of all batch norms.
        positions: that a decoder tells apart; 0 of all networks without scenarios.
        prompt, past: what `scenarios` are of; 0 takes what is usual.
    """

    answers: ClassVar[Answers] = "class"

    name: str
    in_channels: int
    classes: int
    formats: tuple[str, ...]
    eps: float = 1e-5
    positions: int = 0
    prompt: int = 0
    past: int = 0

    # -- what a family is --------------------------------------------------------------------------

    @abstractmethod
    def choices(self) -> Sequence[Choice]:
        """Return what can be chosen. The same family always gives a space of the same fingerprint."""

    @abstractmethod
    def build(self, net: GraphBuilder, choose: Choose) -> None:
        """Append all layers of one network to `net`, by what `choose(name)` gives for each choice.

        It is also run once with all options at the same time: whatever is computed from an option goes
        through arithmetic, comparisons and functions marked `@elementwise`, loops and branches through
        `choose.repeat` and `choose.when`.
        """

    @property
    def input(self) -> NetworkInput:
        """What its networks read: by default images of `in_channels`; of text `TokenInput`."""
        return ImageInput(self.in_channels)

    @property
    def reads(self) -> Reads:
        """The kind of data that its networks read."""
        return self.input.reads

    def input_size(self, choose: Choose) -> int:
        """Return the height and width of the input in pixels, or its tokens: by default a choice,
        `resolution` of images, `length` of tokens.
        """
        size: int = choose(self.input.choice)
        return size

    def elastic_layer(self, name: str, specs: Sequence[Layer]) -> nn.Module:
        """Return the layer called `name` for a supernet, which must be able to have all sizes of `specs`."""
        return network.elastic_layer(specs, self.eps)

    def module_path(self, name: str) -> str:
        """Return where a supernet has the layer called `name`: how its tensors' names begin in files."""
        return re.sub(r"^s(\d+)\.b(\d+)\.", r"stages.\1.\2.", name)

    # -- the space ---------------------------------------------------------------------------------

    @cached_property
    def _space(self) -> SearchSpace:
        return SearchSpace(self.name, tuple(self.choices()))

    def space(self) -> SearchSpace:
        """Return the choices as a search space."""
        return self._space

    def extremes(self) -> Mapping[Extreme, Candidate]:
        """Return the smallest and the largest architecture, each in every uniform format: `smallest/int8`,
        `largest/fp32`...
        """
        pairs = itertools.product(SIZES, self.formats)
        return {Extreme(size, fmt): self.extreme(size, fmt) for size, fmt in pairs}

    def extreme(self, size: Size, number_format: str = FP32) -> Candidate:
        """Return the network of the first, or the last, options of all choices, in a uniform format."""
        genome = [
            self.uniform(c, number_format) if c.kind == "precision" else SIZES[size] % len(c.options)
            for c in self._space.choices
        ]
        return self._space.candidate(np.array(genome, np.int16))

    def uniform(self, choice: Choice, fmt: str) -> int:
        """Return the gene of a choice of number formats in a network that is in `fmt` throughout."""
        return choice.options.index(fmt)

    def arch(self, candidate: Candidate) -> Architecture:
        """Return the architecture of a candidate, whatever its number formats."""
        choose = Choose(self._space, candidate.genes, fp32=True)
        active = self._space.active(np.array([candidate.genes], np.int16))[0]
        options = [
            (choice, choice.options[gene])
            for choice, gene, there in zip(self._space.choices, candidate.genes, active, strict=True)
            if there and choice.kind != "precision"
        ]
        stages: dict[int, dict[int, dict[str, Option]]] = {}
        for choice, option in options:
            if choice.stage is not None and choice.block is not None:
                stages.setdefault(choice.stage, {}).setdefault(choice.block, {})[choice.role] = option
        return Architecture(
            self.input_size(choose),
            {choice.name: option for choice, option in options},
            tuple(tuple(blocks.values()) for blocks in stages.values()),
            self._workload(choose),
        )

    def resolution(self, candidate: Candidate) -> int:
        """Return the input height and width in pixels, or how many tokens are read."""
        return self.input_size(Choose(self._space, candidate.genes))

    def policy(self, candidate: Candidate) -> QuantPolicy:
        """Return the precision of each layer with weights by its name."""
        work = self.workload(candidate)
        return {
            name: Precision(layer.weight_format, layer.activation_format)
            for name, layer in zip(work.names, work.layers, strict=True)
            if params(layer)
        }

    # -- cost --------------------------------------------------------------------------------------

    def workload(self, candidate: Candidate) -> Workload:
        """Return what runs on the device, format conversions included."""
        return self._workload(Choose(self._space, candidate.genes))

    def plain_workload(self, arch: Architecture) -> Workload:
        """Return the workload of an architecture in fp32 throughout."""
        return arch.workload

    def _workload(self, choose: Choose) -> Workload:
        net = GraphBuilder(feeds=(self.input.feed(self.input_size(choose)),))
        self.build(net, choose)
        return net.build()

    @cached_property
    def trace(self) -> Trace:
        """All layers that some network has, and when."""
        return self._trace()

    def _trace(self, *, fp32: bool = False, size: str = "") -> Trace:
        """Run `build` with nothing chosen, on inputs of a size that is chosen too, or left open as `size`."""
        trace = Trace()
        choose: Any = TracedChoose(self._space, trace, fp32=fp32)
        trace.read(self.input, size or self.input_size(choose))
        net: Any = trace
        self.build(net, choose)
        return trace

    @cached_property
    def _terms(self) -> tuple[CostTerm, ...]:
        return cost_terms(self.trace)

    def terms(self) -> tuple[CostTerm, ...]:
        """Return parts whose layers, over all terms, are exactly the layers of `workload(candidate)`."""
        return self._terms

    @cached_property
    def _peak_terms(self) -> tuple[PeakTerm, ...]:
        return peak_terms(self.trace)

    def peak_terms(self) -> tuple[PeakTerm, ...]:
        """Return parts of which the largest needs, in memory, what `workload(candidate)` needs."""
        return self._peak_terms

    # -- scenarios of decoders -----------------------------------------------------------------------

    @cached_property
    def scenarios(self) -> Mapping[str, Scenario]:
        """What its networks are timed at, by name; nothing where all that they do is to read an input.

        Raises:
            TrilobitError: there are fewer positions than that.
        """
        return decoder_scenarios(self.positions, self.prompt, self.past)

    def open_workload(self, candidate: Candidate) -> Workload:
        """Return a decoder for texts of any length."""
        net = GraphBuilder(feeds=(self.input.feed(SEQUENCE),))
        self.build(net, Choose(self._space, candidate.genes))
        return net.build()

    def scenario_workload(self, candidate: Candidate, name: str) -> Workload:
        """Return what runs in the scenario called `name`, with a cache; the network as it is for an empty
        name.
        """
        if not name:
            return self.workload(candidate)
        return scenario_workload(self.open_workload(candidate), self.scenarios[name])

    @cached_property
    def open_trace(self) -> Trace:
        """All layers that some decoder for texts of any length has, and when."""
        return self._trace(size=SEQUENCE)

    def scenario_terms(self) -> tuple[CostTerm, ...]:
        """Return parts whose layers, over all terms, are those of `open_workload(candidate)`: `in_scenario`
        makes those of a scenario of them.
        """
        return cost_terms(self.open_trace)

    def scenario_peak_terms(self, name: str) -> tuple[PeakTerm, ...]:
        """Return parts of which the largest needs what a decoder needs in a scenario, in memory, besides what
        its caches hold.
        """
        return peak_terms(scenario_trace(self.open_trace, self.scenarios[name]))

    # -- networks ----------------------------------------------------------------------------------

    def supernet(self, *, rng: np.random.Generator) -> network.ElasticNet:
        """Return a freshly initialised elastic network; `forward(x, arch)`."""
        sizes = network.layer_sizes(self._trace(fp32=True))
        layers = {name: self.elastic_layer(name, specs) for name, specs in sizes.items()}
        largest = self.arch(self.extreme("largest", self.formats[0]))
        net = network.ElasticNet(layers, self.module_path)
        network.initialise(net, largest.lowered, rng=rng)
        return net

    def extract(self, net: nn.Module, candidate: Candidate) -> Subnet:
        """Return a network by itself, in fp32, with copies of the candidate's weights and statistics."""
        return network.extract(net, self.arch(candidate).workload)


def resolutions(family: Family) -> tuple[int, ...]:
    """Return the input sizes of the largest and the smallest networks, in pixels or tokens, ascending."""
    return tuple(sorted({family.resolution(extreme) for extreme in family.extremes().values()}))


def asked_for(family: Family, *, prompt: int = 0, past: int = 0) -> Family:
    """Return a family of decoders that is timed at such a prompt and such a past; 0 leaves what it has.

    Raises:
        TrilobitError: it is none of decoders, or tells fewer positions apart.
    """
    sizes = {name: size for name, size in (("prompt", prompt), ("past", past)) if size}
    if not sizes:
        return family
    described: Any = family
    known: set[str] = {f.name for f in fields(described)} if is_dataclass(family) else set()
    if not family.positions or not sizes.keys() <= known:
        raise TrilobitError(
            f"space {family.name} has no scenarios of a prompt and of what follows it; leave --prefill and "
            "--decode out, or take a space of decoders"
        )
    timed: Family = replace(described, **sizes)
    _ = timed.scenarios
    return timed


def load_family(
    name: str, *, in_channels: int, classes: int, formats: tuple[str, ...] | None = None
) -> Family:
    """Return the family registered as `name`; a name that ends in `.json` is that of a file which holds a
    space.

    Args:
        in_channels: of images; of text the size of the vocabulary.
        classes: how many.
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
    family = make(in_channels=in_channels, classes=classes, formats=ordered)
    return family
