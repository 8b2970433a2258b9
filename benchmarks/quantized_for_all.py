"""Every width from one set of weights: accuracy of subnets of the embedded digits at each uniform width.

One supernet is trained in fp32 and then, for a short while, for all widths at once. Beside it are what can be
had without that phase, by calibration alone, and the same supernet trained just as long for one width only.
Test images; means over the largest, the smallest and some random architectures, then over seeds.
"""

import tempfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import Row, interquartile_range, one_core, parse_arguments, report
from torch import nn

from supernet.families.family import Family, load_family
from supernet.qat.learned import LearnedQuantizers
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from supernet.train.loop import TrainConfig, load_supernet, train
from supernet.train.policies import Policies, find_policies
from supernet.train.quantized import QuantizedPhase, first_quantizers, load_quantized, train_quantized

SPACE, FORMATS = "digits-mbconv", ("fp32", "int8", "int6", "int4", "int2")
WIDTHS = (8, 6, 4, 2)
RECIPE, PHASE = TrainConfig(), QuantizedPhase()
RANDOM = 6  # architectures besides both ends
ALONE = 0.01  # how much worse than trained alone a width may be, from 4 bits on
SMALLEST_GOOD = 4

Accuracies = Mapping[str, list[float]]  # by way of quantizing: of every architecture


@dataclass(frozen=True)
class Trained:
    """Supernets of one seed.

    Attributes:
        fp32: before the quantized phase, with its first scales.
        joint: after the phase for all widths.
        alone: after a phase for one width only, by width.
    """

    fp32: tuple[nn.Module, LearnedQuantizers]
    joint: tuple[nn.Module, LearnedQuantizers]
    alone: Mapping[int, tuple[nn.Module, LearnedQuantizers]]


def train_all(
    family: Family,
    dataset: ImageClassification,
    recipe: TrainConfig,
    phase: QuantizedPhase,
    folder: Path,
    seed: int,
) -> Trained:
    """All supernets of one seed."""
    path = folder / f"{seed}.pt"
    for _ in train(family, dataset, recipe, path, seed=seed):
        pass
    net = load_supernet(family, path)
    scales = first_quantizers(family, net, dataset, images=phase.calibration, seed=seed)

    def after(config: QuantizedPhase, name: str) -> tuple[nn.Module, LearnedQuantizers]:
        target = folder / f"{seed}-{name}.pt"
        for _ in train_quantized(family, deepcopy(net), dataset, config, target, seed=seed, recipe=recipe):
            pass
        return load_quantized(family, target)

    alone = {bits: after(replace(phase, widths=(bits,), mixed=0), f"w{bits}") for bits in WIDTHS}
    return Trained((net, scales), after(phase, "joint"), alone)


def networks(family: Family, policies: Policies, bits: int, n: int) -> Iterator[Candidate]:
    """Both ends and `n` random architectures, at one width."""
    space, rng = family.space(), np.random.default_rng(1)
    smallest = np.zeros(len(space.choices), np.int16)
    for genome in (policies.base, smallest, *space.sample(n, rng=rng)):
        uniform = policies.uniform(genome, bits, rng=np.random.default_rng(0))
        yield space.candidate(space.canonical(uniform[None])[0])


def accuracies(
    family: Family, trained: Trained, dataset: ImageClassification, bits: int, n: int
) -> Accuracies:
    """Test accuracies of simulated integer networks."""
    calibration, policies = calibration_examples(dataset, seed=0), find_policies(family)
    ways = {
        "ours": trained.joint,
        "calibration, Double Rounding": trained.fp32,
        "trained for this width alone": trained.alone[bits],
    }
    test_accuracies: dict[str, list[float]] = {name: [] for name in (*ways, "calibration", "fp32")}
    for candidate in networks(family, policies, bits, n):
        for name, (net, scales) in ways.items():
            network = build_network(family, net, candidate, dataset, calibration, scales)
            test_accuracies[name].append(simulated_metric(network, dataset.test, dataset))
        plain = build_network(family, trained.fp32[0], candidate, dataset, calibration)
        test_accuracies["calibration"].append(simulated_metric(plain, dataset.test, dataset))
        fp32 = _in_fp32(family, policies, candidate)
        exact = build_network(family, trained.joint[0], fp32, dataset, calibration)
        test_accuracies["fp32"].append(simulated_metric(exact, dataset.test, dataset))
    return test_accuracies


def _in_fp32(family: Family, policies: Policies, candidate: Candidate) -> Candidate:
    genome = np.array(candidate.genes, np.int16)
    genome[list(policies.columns)] = 0
    return family.space().candidate(genome)


def rows_of(bits: int, seeds: list[Accuracies]) -> Iterator[Row]:
    """The mean over architectures, and the worst loss to fp32."""
    means = {name: [float(np.mean(seed[name])) for seed in seeds] for name in seeds[0]}
    medians = {name: float(np.median(values)) for name, values in means.items()}
    ours = medians.pop("ours")
    target = medians["trained for this width alone"] - ALONE if bits >= SMALLEST_GOOD else None
    spread = interquartile_range(np.array(means["ours"]))
    yield Row(f"int{bits} weights", "test accuracy", "share", "higher", ours, spread, medians, target)
    worst = [max(f - o for f, o in zip(seed["fp32"], seed["ours"], strict=True)) for seed in seeds]
    yield Row(
        f"int{bits} weights",
        "largest loss to fp32",
        "share",
        "lower",
        float(np.median(worst)),
        interquartile_range(np.array(worst)),
        target=0.02 if bits == SMALLEST_GOOD else None,
    )


def main() -> None:
    arguments = parse_arguments(__doc__, seeds=3)
    quick = arguments.quick
    recipe = replace(RECIPE, epochs=2) if quick else RECIPE
    phase = replace(PHASE, epochs=1, probes=1) if quick else PHASE
    family = load_family(SPACE, in_channels=1, classes=10, formats=FORMATS)
    test_accuracies: dict[int, list[Accuracies]] = {bits: [] for bits in WIDTHS}
    with one_core(), tempfile.TemporaryDirectory() as folder:
        for seed in range(1 if quick else arguments.seeds):
            dataset = load_images("digits", seed=seed)
            trained = train_all(family, dataset, recipe, phase, Path(folder), seed)
            for bits in WIDTHS:
                test_accuracies[bits].append(
                    accuracies(family, trained, dataset, bits, 1 if quick else RANDOM)
                )
    rows = [row for bits in WIDTHS for row in rows_of(bits, test_accuracies[bits])]
    report("quantized_for_all", rows, arguments.json)


if __name__ == "__main__":
    main()
