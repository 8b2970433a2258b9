"""What every family promises (`nas.Family`); a plug-in is what makes one, as it is registered."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.graph.counts import macs
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.runtimes.runtime import single_output
from nas.checks.parity import open_file
from nas.emit.to_onnx import emit
from nas.testing.contract import Contract, expect
from predictors.table import compile_peak
from supernet.families.family import SIZES, Family
from supernet.graph.executor import Unquantized, forward, layered
from supernet.ptq.calibrate import observe, quantize
from supernet.space.space import Candidate

CHANNELS, VOCABULARY, CLASSES, BATCH = 3, 257, 7, 2
PARITY = 1e-5  # relative to the largest logit; float32 sums in another order differ by some 1e-7
ONNX_PARITY = 1e-4  # batch norm is folded there, which rounds every weight once more
LARGE_MACS = 100e6  # families whose networks reach more are run at their smallest resolution, fewer at a time


@dataclass(frozen=True, eq=False)
class FamilyCase:
    """A family for 7 classes of images of 3 channels, or of text of 257 tokens, and its supernet.

    Attributes:
        make: as it is registered.
    """

    make: Callable[..., Family]

    @cached_property
    def family(self) -> Family:
        """The family."""
        return self.make(in_channels=self.channels, classes=CLASSES)

    @cached_property
    def channels(self) -> int:
        """Channels of images, or how many tokens there are."""
        return CHANNELS if self.make(in_channels=CHANNELS, classes=CLASSES).reads == "images" else VOCABULARY

    @cached_property
    def net(self) -> nn.Module:
        """Its supernet in evaluation mode, with batch norms and a classifier that no two channels share."""
        net = self.family.supernet(rng=np.random.default_rng(0))
        generator = torch.Generator().manual_seed(0)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low, high in (
                    (module.weight, 0.5, 1.5),
                    (module.bias, -0.5, 0.5),
                    (module.running_mean, -0.5, 0.5),
                    (module.running_var, 0.5, 2.0),
                ):
                    nn.init.uniform_(tensor, low, high, generator=generator)  # type: ignore[arg-type]
            if isinstance(module, nn.Linear):
                deviation = module.in_features**-0.5
                nn.init.normal_(module.weight, std=deviation, generator=generator)
        return net.eval()

    @cached_property
    def largest_macs(self) -> int:
        """Multiply-adds of the largest network."""
        return sum(map(macs, self.family.workload(self.family.extreme("largest")).layers))

    def candidates(self, n: int) -> list[Candidate]:
        """Return the extremes and `n` random networks."""
        space = self.family.space()
        drawn = [space.candidate(genome) for genome in space.sample(n, rng=np.random.default_rng(1))]
        return [*self.family.extremes().values(), *drawn]

    def affordable(self, candidate: Candidate) -> Candidate:
        """Return the same network, of a large family for the smallest images, or the shortest text."""
        column = self.family.space().columns.get(self.family.input.choice)
        if self.largest_macs <= LARGE_MACS or column is None:
            return candidate
        genes = np.array(candidate.genes, np.int16)
        genes[column] = 0
        return self.family.space().candidate(genes)

    def runnable(self, n: int) -> list[Candidate]:
        """Return what `candidates` does, but only as many as run in some seconds."""
        share = min(1.0, LARGE_MACS / self.largest_macs)
        return [self.affordable(candidate) for candidate in self.candidates(max(4, int(n * share)))]

    def deepest(self) -> list[Candidate]:
        """Return the largest network, and the one with as many layers but all else as small as can be."""
        space, largest = self.family.space(), self.family.extreme("largest")
        parents = {name for choice in space.choices for name, _ in choice.active_if}
        genes = [
            gene if c.name in parents else 0 for c, gene in zip(space.choices, largest.genes, strict=True)
        ]
        return [
            self.affordable(candidate) for candidate in (largest, space.candidate(np.array(genes, np.int16)))
        ]

    def inputs(self, candidate: Candidate) -> Tensor:
        """Return random examples that the network takes."""
        generator = torch.Generator().manual_seed(0)
        return self.family.input.drawn(BATCH, self.family.resolution(candidate), generator=generator)

    def elastic(self, candidate: Candidate) -> Tensor:
        """Return what the supernet says of these examples as that network."""
        with torch.no_grad():
            logits: Any = self.net(self.inputs(candidate), self.family.arch(candidate))
        return logits  # type: ignore[no-any-return]


def expect_close(answer: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raise unless logits are the same, up to a share of the largest one.

    Raises:
        AssertionError: says how far they are off.
    """
    shapes = tuple(answer.shape), tuple(expected.shape)
    expect(shapes[0] == shapes[1], f"{what}: shape {shapes[0]}, not {shapes[1]}")
    off = float((answer - expected).abs().max() / expected.abs().max())
    expect(off <= tolerance, f"{what}: off by {off:.2g} of the largest logit, allowed is {tolerance:.0e}")


def is_what_was_asked_for(case: FamilyCase) -> None:
    """Make what has the channels and classes that were asked for, and always the same space."""
    family, again = case.family, case.make(in_channels=case.channels, classes=CLASSES)
    expect((family.in_channels, family.classes) == (case.channels, CLASSES), "other channels or classes")
    expect(family.space().fingerprint == again.space().fingerprint, "made twice, it has two spaces")


def counts_the_memory_of_its_networks(case: FamilyCase) -> None:
    """Count by its peak terms the memory that its workloads need."""
    candidates = case.candidates(40)
    genomes = np.array([candidate.genes for candidate in candidates], np.int16)
    counted = compile_peak(case.family.space(), case.family.peak_terms())(genomes)
    needed = [peak_bytes(case.family.workload(candidate)) for candidate in candidates]
    wrong = [candidate.id for candidate, a, b in zip(candidates, counted, needed, strict=True) if a != b]
    expect(
        not wrong, f"{len(wrong)} of {len(candidates)} networks need other memory, for example {wrong[:1]}"
    )


def counts_the_layers_of_its_networks(case: FamilyCase) -> None:
    """Its cost terms hold exactly the layers that its workloads have."""
    terms = case.family.terms()
    for candidate in case.candidates(40):
        counted = Counter(layer for term in terms for layer in term.at(candidate.genes))
        needed = Counter(case.family.workload(candidate).layers)
        wrong = [layer.key() for layer in (counted - needed) + (needed - counted)]
        expect(not wrong, f"network {candidate.id}: other layers than its workload, for example {wrong[:1]}")


def extracts_what_the_supernet_computes(case: FamilyCase) -> None:
    """Extract networks that compute what the supernet computes."""
    check_extraction(case, case.runnable(16))


def check_extraction(case: FamilyCase, candidates: Sequence[Candidate]) -> None:
    """Raise unless these networks compute the same inside the supernet and taken out of it.

    Raises:
        AssertionError: one does not, or several compute the same.
    """
    outputs = set()
    for candidate in candidates:
        elastic = case.elastic(candidate)
        with torch.no_grad():
            static = case.family.extract(case.net, candidate).eval()(case.inputs(candidate))
        tokens = (case.family.resolution(candidate),) * (case.family.answers != "class")
        expect(elastic.shape == (BATCH, *tokens, CLASSES), f"logits have the shape {tuple(elastic.shape)}")
        expect_close(static, elastic, PARITY, candidate.id)
        outputs.add(tuple(elastic.flatten().tolist()))
    architectures = {repr(case.family.arch(candidate)) for candidate in candidates}
    expect(len(outputs) == len(architectures), "different architectures compute the same")


def runs_workloads_on_its_own_layers(case: FamilyCase) -> None:
    """Find all layers of a workload in the supernet by name, which is how policies are trained."""
    case.net.train()
    try:
        for candidate in case.runnable(4)[-4:]:
            work = case.family.plain_workload(case.family.arch(candidate))
            with torch.no_grad():
                answer = forward(layered(case.net), Unquantized(), work, case.inputs(candidate))
            expect_close(answer, case.elastic(candidate), PARITY, candidate.id)
    finally:
        case.net.eval()


def _changed(case: FamilyCase, original: Mapping[str, Tensor]) -> list[str]:
    """Return which tensors of the supernet are no longer what they were."""
    now = case.net.state_dict().items()
    return [name for name, tensor in now if not torch.equal(tensor, original[name])]


def extracts_copies(case: FamilyCase) -> None:
    """Copy what is extracted: changing it changes nothing in the supernet."""
    original = {name: tensor.clone() for name, tensor in case.net.state_dict().items()}
    subnet = case.family.extract(case.net, case.family.extreme("largest"))
    with torch.no_grad():
        for tensor in subnet.state_dict().values():
            tensor.zero_()
    changed = _changed(case, original)
    expect(not changed, f"{len(changed)} tensors are shared, for example {changed[:1]}")


def remembers_no_network(case: FamilyCase) -> None:
    """Keep nothing of a network in the supernet when the next one runs."""
    small, large = (case.affordable(case.family.extreme(size)) for size in SIZES)
    original = {name: tensor.clone() for name, tensor in case.net.state_dict().items()}
    first, _, again = (case.elastic(candidate) for candidate in (small, large, small))
    expect(torch.equal(first, again), "it computes something else after another network ran")
    changed = _changed(case, original)
    expect(not changed, f"running it changes {changed[:1]}")


def draws_first_weights_from_its_seed(case: FamilyCase) -> None:
    """Draw the first weights from the generator alone."""
    first, again, other = (
        torch.cat([p.flatten() for p in case.family.supernet(rng=np.random.default_rng(seed)).parameters()])
        for seed in (3, 3, 4)
    )
    expect(torch.equal(first, again), "two supernets of one seed differ")
    expect(not torch.equal(first, other), "another seed makes no difference")


def writes_files_that_compute_the_same(case: FamilyCase) -> None:
    """Write ONNX files that compute in fp32 what torch computes."""
    candidate = case.deepest()[1]  # every layer there is, and of no more channels than need be
    subnet, x = case.family.extract(case.net, candidate).eval(), case.inputs(candidate)
    plain = case.family.plain_workload(case.family.arch(candidate))
    file = open_file(emit(quantize(subnet, plain, observe(subnet, x)), batch=BATCH))
    logits = single_output(file, x.numpy())
    with torch.no_grad():
        expect_close(torch.from_numpy(logits), subnet(x), ONNX_PARITY, candidate.id)


def learns_everywhere(case: FamilyCase) -> None:
    """Send gradients to every parameter through the deepest networks."""
    case.net.zero_grad()
    for candidate in case.deepest():
        case.net(case.inputs(candidate), case.family.arch(candidate)).square().sum().backward()
    silent = [name for name, p in case.net.named_parameters() if p.grad is None or not p.grad.any()]
    case.net.zero_grad()
    expect(not silent, f"{len(silent)} parameters get no gradient, for example {silent[:1]}")


FAMILY = Contract[FamilyCase](
    "family",
    (
        is_what_was_asked_for,
        counts_the_layers_of_its_networks,
        counts_the_memory_of_its_networks,
        extracts_what_the_supernet_computes,
        runs_workloads_on_its_own_layers,
        extracts_copies,
        remembers_no_network,
        draws_first_weights_from_its_seed,
        writes_files_that_compute_the_same,
        learns_everywhere,
    ),
)


def check_family(make: Callable[..., Family]) -> None:
    """Try every promise of a family, made as it is registered.

    Raises:
        BrokenContractError: some are broken; all of them are named.
    """
    FAMILY(FamilyCase(make))
