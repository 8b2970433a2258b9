"""The short quantized phase after training in fp32: one set of weights learns to be rounded to every width.

In every step the largest network in fp32 learns from the labels, and then each width in turn, on one
architecture, and a network of mixed widths learn from it. Every loss is back-propagated and applied before
the next: their gradients are not added, since low widths' would drown the others'. Exactly resumable, as the
training before it.
"""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.reference.integer_sums import IntegerSums
from hw_profiles.streams import Stream, open_stream
from supernet.families.family import Family
from supernet.graph.executor import forward, layered
from supernet.qat.learned import LearnedQuantizers, find_structure, integer_extremes, new_quantizers
from supernet.sensitivity.hessian import hessian_traces, rounding_errors
from supernet.space.space import Candidate, Genomes
from supernet.tasks.task import Task
from supernet.train.batches import Batches
from supernet.train.checkpoint import load_checkpoint, save_checkpoint
from supernet.train.config import WIDEST as WIDEST
from supernet.train.config import QuantizedPhase as QuantizedPhase
from supernet.train.config import TrainConfig
from supernet.train.loop import Progress
from supernet.train.parallel import World
from supernet.train.policies import Policies, find_policies
from supernet.train.schedule import warmed_cosine

USUAL_SIZE = 0.1  # of a weight (root mean square): Adam's steps are as long whatever the size, and wide
# filters of a batch-normed network are smaller; what is smaller learns in proportion


@dataclass(frozen=True)
class _Phase:
    """What a step reads and changes."""

    family: Family
    batches: Batches
    config: QuantizedPhase
    policies: Policies
    net: nn.Module
    quantizers: LearnedQuantizers
    weights: torch.optim.Optimizer
    scales: torch.optim.Optimizer

    @property
    def steps(self) -> int:
        return phase_steps(self.batches.task, self.config)

    @property
    def widths(self) -> tuple[int, ...]:
        return self.config.widths or self.policies.widths

    def state(self) -> dict[str, Any]:
        return {
            "model": self.net.state_dict(),
            "quantizers": self.quantizers.state_dict(),
            "optimiser": self.weights.state_dict(),
            "scales": self.scales.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; what is over needs no optimisers.

        Raises:
            ValueError: its optimisers were grouped otherwise, by an earlier version.
        """
        self.net.load_state_dict(state["model"])
        self.quantizers.load_state_dict(state["quantizers"])
        if int(state["step"]) < self.steps:
            self.weights.load_state_dict(state["optimiser"])
            self.scales.load_state_dict(state["scales"])


def phase_steps(task: Task, config: QuantizedPhase) -> int:
    """Return the batches of the whole phase."""
    return max(1, round(config.epochs * max(1, len(task.train) // config.batch_size)))


def train_quantized(
    family: Family,
    net: nn.Module,
    task: Task,
    config: QuantizedPhase,
    path: Path,
    *,
    seed: int,
    recipe: TrainConfig | None = None,
    sums: IntegerSums = IntegerSums.EXACT,
) -> Iterator[Progress]:
    """Train, or resume from `path`, or find there that it is done. Gives the progress after every step.

    Args:
        net: the supernet trained in fp32, on the device to train on. It is trained further, in place.
        recipe: how images are changed and labels smoothed; by default as in training in fp32.
        sums: of the device that networks are rounded for.

    Raises:
        TrilobitError: the space has no integer formats, or not those of `config.widths`; or the checkpoint
            there is damaged, of another space, or of other weights, data or configuration.
    """
    recipe = replace(recipe or TrainConfig(), batch_size=config.batch_size, accumulate=1)
    device = next(net.parameters()).device
    batches = Batches(task, recipe, seed, World(), device)
    identity = {**_identity(family, net, task, config, recipe, seed), **sums.identity}
    policies = find_policies(family)
    _require_widths(family, config, policies)
    state = _matching(path, identity) if path.exists() else None
    if state is None:
        quantizers = first_quantizers(family, net, task, images=config.calibration, seed=seed, sums=sums)
    else:
        quantizers = LearnedQuantizers(find_structure(family), sums).to(device)
    weights, scales = _optimisers(net, quantizers, config)
    phase = _Phase(family, batches, config, policies, net, quantizers, weights, scales)
    if state is None:
        step, traces = 0, _traces(phase)
    else:
        try:
            phase.load(state)
        except ValueError:
            raise TrilobitError(f"{path}: an earlier version began it; delete it to train anew") from None
        step, traces = int(state["step"]), state["traces"]
    saved_at = time.monotonic()
    if step == phase.steps:
        yield Progress(step, phase.steps, math.nan)
    while step < phase.steps:
        loss = _step(phase, step, traces)
        step += 1
        if step == phase.steps or time.monotonic() - saved_at > config.checkpoint_s:
            progress = {"step": step, "steps": phase.steps, "traces": traces}
            save_checkpoint(path, {**identity, **progress, **phase.state()})
            saved_at = time.monotonic()
        rate = config.learning_rate * warmed_cosine(step - 1, phase.steps, config.warmup)
        yield Progress(step, phase.steps, loss, rate, len(batches.rows(step - 1)))


def load_quantized(
    family: Family, path: Path, sums: IntegerSums = IntegerSums.EXACT
) -> tuple[nn.Module, LearnedQuantizers]:
    """Return the supernet after its quantized phase, in evaluation mode, and its learned scales.

    Args:
        sums: of the device that networks are rounded for.

    Raises:
        TrilobitError: the checkpoint is missing, damaged, of another space, or its training is not finished.
    """
    state = load_checkpoint(path, fingerprint=family.space().fingerprint)
    if "quantizers" not in state:
        raise TrilobitError(f"{path}: was trained in fp32 only; run its quantized phase")
    if state["step"] < state["steps"]:
        raise TrilobitError(
            f"{path}: the quantized phase stopped at step {state['step']} of {state['steps']}; "
            "run it again to finish it"
        )
    net = family.supernet(rng=np.random.default_rng(0))
    quantizers = LearnedQuantizers(find_structure(family), sums)
    net.load_state_dict(state["model"])
    quantizers.load_state_dict(state["quantizers"])
    return net.eval(), quantizers.eval()


def first_quantizers(
    family: Family,
    net: nn.Module,
    task: Task,
    *,
    images: int,
    seed: int,
    sums: IntegerSums = IntegerSums.EXACT,
) -> LearnedQuantizers:
    """Return the scales before any training: of weights by LSQ+'s rule, of tensors from so many images of
    the training part, at the largest and the smallest architecture.
    """
    part, device = task.train, next(net.parameters()).device
    rows = open_stream(seed, Stream.FIRST_SCALES).permutation(len(part))[:images]
    samples = [
        (family.workload(candidate), task.inputs(part[rows], family.resolution(candidate)).to(device))
        for candidate in integer_extremes(family)
    ]
    return new_quantizers(find_structure(family), layered(net), samples, sums).to(device)


def scale_learning_rate(peak: float, bits: int, gradients: list[Tensor]) -> float:
    """Return by ALRS the learning rate of scales for a loss at `bits`, smaller for low widths and for large
    gradients.

    peak * eta * max(0, 1 - mean over scales of min(max|clip(g)|, 1)), eta being 10^(-d/2) for an even
    difference d to 8 bits and 5 * 10^(-(d+1)/2) for an odd one. The paper's bracket, peak - mean, is negative
    as soon as gradients exceed the peak; this is the form that stays proportional to it.

    >>> scale_learning_rate(1.0, 4, [torch.tensor(0.25)])
    0.0075
    """
    apart = WIDEST - bits
    eta = math.pow(10.0, -apart / 2) if apart % 2 == 0 else 5 * math.pow(10.0, -(apart + 1) / 2)
    if not gradients:
        return peak * eta
    largest = torch.stack([gradient.abs().max() for gradient in gradients]).clamp_max(1.0)
    return peak * eta * max(0.0, 1.0 - float(largest.mean()))


def _step(phase: _Phase, step: int, traces: Mapping[str, float]) -> float:
    """Train on one batch: the teacher, then each width and the mixed networks; gives the teacher's loss."""
    config, family, seed = phase.config, phase.family, phase.batches.seed
    factor = warmed_cosine(step, phase.steps, config.warmup)
    for group in phase.weights.param_groups:
        group["lr"] = config.learning_rate * factor * group["share"]
    phase.net.train()
    ((images, targets),) = phase.batches.of(step)
    largest = family.arch(_candidate(family, phase.policies.base))
    task = phase.batches.task
    logits = phase.net(task.sized(images, largest.resolution), largest)
    loss = task.loss(logits, targets, smoothing=phase.batches.config.smoothing)
    _apply(phase, loss, bits=WIDEST, factor=0.0)
    teacher = logits.detach()
    rng = open_stream(seed, Stream.QUANTIZED_STEP, step)
    _in_fp32(phase, images, teacher, rng)
    for genome in _step_genomes(phase, step, traces, rng):
        candidate = _candidate(family, genome)
        workload = family.workload(candidate)
        logits = forward(
            layered(phase.net), phase.quantizers, workload, task.sized(images, family.resolution(candidate))
        )
        _apply(
            phase,
            task.distillation_loss(logits, teacher),
            bits=phase.policies.average_bits(genome),
            factor=factor,
        )
    return float(loss.detach())


def _in_fp32(phase: _Phase, images: Tensor, teacher: Tensor, rng: np.random.Generator) -> None:
    """Train a random architecture in fp32: the small networks must not forget."""
    family = phase.family
    arch = family.arch(_candidate(family, family.space().sample(1, rng=rng)[0]))
    task = phase.batches.task
    logits = phase.net(task.sized(images, arch.resolution), arch)
    _apply(phase, task.distillation_loss(logits, teacher), bits=WIDEST, factor=0.0)


def _step_genomes(
    phase: _Phase, step: int, traces: Mapping[str, float], rng: np.random.Generator
) -> Iterator[Genomes]:
    """Yield one network of each width, whose architecture is the largest, the smallest or a random one in
    turn, and the networks of mixed widths: drawn by HASB and, every other step, by the integer program.
    """
    policies, space = phase.policies, phase.family.space()
    smallest = np.zeros(len(space.choices), np.int16)
    for turn, bits in enumerate(phase.widths):
        kinds = (policies.base, smallest, space.sample(1, rng=rng)[0])
        yield policies.uniform(kinds[(step + turn) % len(kinds)], bits, rng=rng)
    for turn in range(phase.config.mixed):
        genome = space.sample(1, rng=rng)[0]
        if (step + turn) % 2 == 0:
            yield policies.switched(genome, traces, rng=rng)
        else:
            average = rng.uniform(min(phase.widths), max(phase.widths))
            yield policies.allocated(genome, _sensitivities(phase, traces), average)


def _sensitivities(phase: _Phase, traces: Mapping[str, float]) -> dict[int, dict[str, float]]:
    """Return by width and layer: mean eigenvalue of the Hessian times the squared rounding error (HAWQ-V3,
    arXiv:2011.10680): unlike the paper's objective it falls with the width.
    """
    layers = phase.quantizers.structure.weights
    return {
        bits: {
            name: traces[name] * error
            for name, error in rounding_errors(layered(phase.net), phase.quantizers, layers, bits).items()
        }
        for bits in phase.policies.widths
    }


def _apply(phase: _Phase, loss: Tensor, *, bits: float, factor: float) -> None:
    """Back-propagate one loss and take one step of the weights, and of the scales where they took part."""
    config = phase.config
    phase.weights.zero_grad(set_to_none=True)
    phase.scales.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(phase.net.parameters(), config.clip_norm)
    phase.weights.step()
    gradients = [p.grad for p in phase.quantizers.parameters() if p.grad is not None]
    if gradients:
        rate = scale_learning_rate(config.scale_learning_rate * factor, round(bits), gradients)
        for group in phase.scales.param_groups:
            group["lr"] = rate
        phase.scales.step()


def _traces(phase: _Phase) -> dict[str, float]:
    """Return traces of the Hessian by layer, on one batch of unchanged images."""
    task, base = phase.batches.task, _candidate(phase.family, phase.policies.base)
    rows = open_stream(phase.batches.seed, Stream.HESSIAN).permutation(len(task.train))
    rows = rows[: phase.config.batch_size]
    device = phase.batches.device
    images = task.inputs(task.train[rows], phase.family.resolution(base)).to(device)
    targets = task.targets(task.train[rows]).to(device)
    work = phase.family.plain_workload(phase.family.arch(base))
    settings = {"probes": phase.config.probes, "seed": phase.batches.seed}
    return hessian_traces(
        layered(phase.net), work, images, targets, loss=partial(task.loss, smoothing=0.0), **settings
    )


def _candidate(family: Family, genome: Genomes) -> Candidate:
    space = family.space()
    return space.candidate(space.canonical(genome[None])[0])


def _optimisers(
    net: nn.Module, quantizers: LearnedQuantizers, config: QuantizedPhase
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Return the optimisers of the weights, which decay, and of the scales, which do not.

    A group's `share` is that of the learning rate which it has.
    """
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": [p], "weight_decay": config.weight_decay, "share": learning_share(p)}
        for p in net.parameters()
        if p.ndim > 1
    ]
    groups.append({"params": others, "weight_decay": 0.0, "share": 1.0})
    weights = torch.optim.AdamW(groups, lr=config.learning_rate)
    return weights, torch.optim.AdamW(quantizers.parameters(), lr=config.scale_learning_rate, weight_decay=0)


def learning_share(weight: Tensor) -> float:
    """Return the share of the learning rate that a weight of this size has.

    >>> round(learning_share(torch.tensor([0.03, -0.03])), 3), learning_share(torch.ones(3))
    (0.3, 1.0)
    """
    return min(1.0, float(weight.detach().square().mean().sqrt()) / USUAL_SIZE)


def _identity(
    family: Family, net: nn.Module, task: Task, config: QuantizedPhase, recipe: TrainConfig, seed: int
) -> dict[str, Any]:
    """Return what decides the result: also the weights that it begins with."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    plain = {name: value for name, value in asdict(config).items() if name != "checkpoint_s"}
    changes = ("smoothing", "pad", "flip", "cutout", "mixup", "randaugment")
    alternate = {"alternate": True} if recipe.alternate else {}
    return {
        "space": family.space().fingerprint,
        "data": task.fingerprint,
        "config": {
            **plain,
            "widths": list(config.widths),
            **{name: getattr(recipe, name) for name in changes},
            **alternate,
        },
        "seed": seed,
        "initial": digest.hexdigest()[:16],
    }


def _matching(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    state = load_checkpoint(path, fingerprint=identity["space"])
    changed = [name for name, value in identity.items() if state.get(name) != value]
    if changed:
        raise TrilobitError(
            f"{path}: the quantized phase there had another {' and '.join(changed)}; "
            "use another run folder, or delete it to train anew"
        )
    return state


def _require_widths(family: Family, config: QuantizedPhase, policies: Policies) -> None:
    missing = [width for width in config.widths if width not in policies.widths]
    if missing:
        widths = ", ".join(map(str, policies.widths))
        raise TrilobitError(
            f"quantized.widths: {family.name} has weights of {widths} bits, not {missing[0]}; "
            "give the space such a format, or leave the width out"
        )
