"""What elasticity costs: one training step of a supernet's largest subnet beside the same network on its own,
and the evaluation of a subnet, from its extraction to its accuracy on 5,000 images.

The network on its own is the extracted one, with batch norms that keep running statistics, as anyone would
train it. Both see the same batch, are updated by the same optimiser, and take turns on one core; the ratio is
the median of those of neighbouring steps. Images are random pixels: times do not depend on what they show.

And what a whole training of the supernet costs against that of its largest network alone, by the fast recipe:
steps of every kind that the recipe has take turns, at every resolution, and count by their shares of it.
"""

import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import Row, interleaved_s, interquartile_range, one_core, parse_arguments, report
from torch import Tensor, nn

from hw_profiles.graph.counts import macs
from supernet.data.images import Images
from supernet.families.family import Family, load_family
from supernet.space.space import Candidate
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.losses import label_loss
from supernet.train.budget import segment_ends
from supernet.train.config import TrainConfig
from supernet.train.malloc import keep_freed_memory
from supernet.train.plan import Plan
from supernet.train.step import take_step
from supernet.train.training import Training, start

SPACE, PIXELS, CLASSES = "cifar-mbconv", 32, 10
BATCH, QUICK_BATCH = 128, 32
RATIO = 1.1  # of the elastic step to the other, at most
MACS, IMAGES, EVALUATION_S = 12e6, 5_000, 15.0
TRAINING = 3.0  # times the training of the largest alone, at most
RECIPE = Path(__file__).parents[1] / "examples" / "cifar-fast.toml"
ALONE = "the largest alone"
# other subnets besides the largest and, in a sandwich, the smallest
SCHEDULES = {
    "alternating": (1, "one other network a step"),
    "sandwich": (2, "the smallest and two random ones"),
}
STEPS = 1_000  # of a schedule; only shares count
DRAWN = 200  # candidates, of which the one closest to MACS is evaluated


def random_images(n: int, *, rng: np.random.Generator) -> Images:
    """Random pixels with random labels."""
    pixels = rng.integers(0, 256, (n, PIXELS, PIXELS, 3), dtype=np.uint8)
    return Images(pixels, rng.integers(0, CLASSES, n))


def random_dataset(n: int) -> ImageClassification:
    """`n` images of search-validation, and enough others."""
    rng = np.random.default_rng(0)
    train, validation = random_images(1_000, rng=rng), random_images(n, rng=rng)
    names = tuple(map(str, range(CLASSES)))
    return ImageClassification("random", names, train, validation, train[:1], (0.5,) * 3, (0.3,) * 3)


def step_of(
    net: nn.Module, forward: Callable[[Tensor], Tensor], dataset: ImageClassification, batch: int
) -> partial[None]:
    """A training step of `net`, which runs as `forward`."""
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
    part = dataset.train[:batch]
    x, labels = dataset.inputs(part, PIXELS), torch.from_numpy(part.labels)
    return partial(_step, net.train(), forward, optimiser, x, labels)


def _step(
    net: nn.Module,
    forward: Callable[[Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    labels: Tensor,
) -> None:
    optimiser.zero_grad(set_to_none=True)
    label_loss(forward(x), labels, 0.1).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimiser.step()


def step_rows(family: Family, dataset: ImageClassification, *, batch: int, repeats: int) -> Iterator[Row]:
    """Seconds of a step of both, and their ratio."""
    largest = family.extreme("largest")
    elastic = family.supernet(rng=np.random.default_rng(0)).to(memory_format=torch.channels_last)
    static = family.extract(elastic, largest).to(memory_format=torch.channels_last)
    tasks = {
        "elastic": step_of(elastic, partial(elastic, arch=family.arch(largest)), dataset, batch),
        "static": step_of(static, static, dataset, batch),
    }
    seconds = interleaved_s(tasks, repeats)
    ratios = seconds["elastic"] / seconds["static"]
    task = f"training step, {mega_macs(family, largest):.1f} MMACs, batch {batch}"
    median, spread = (float(np.median(seconds["elastic"])), interquartile_range(seconds["elastic"]))
    alone = {"the same network on its own": float(np.median(seconds["static"]))}
    yield Row(task, "time", "s", "lower", median, spread, alone)
    yield Row(
        task,
        "times the network on its own",
        "ratio",
        "lower",
        float(np.median(ratios)),
        interquartile_range(ratios),
        {},
        RATIO,
    )


def training_rows(*, batch: int, repeats: int) -> Iterator[Row]:
    """Seconds of a step of each schedule over those of the largest network alone, weighted by how much of the
    recipe has such steps.
    """
    section = tomllib.loads(RECIPE.read_text())
    config = TrainConfig(**{**section["train"], "budget": "", "batch_size": batch, "threads": 1})
    family = load_family(section["space"]["name"], in_channels=3, classes=CLASSES)
    ends = segment_ends(family, config)
    shares, middles = np.diff((0.0, *ends)), (np.array((0.0, *ends[:-1])) + ends) / 2
    schedules = {"largest": (config.random_subnets, ALONE)} | SCHEDULES
    tasks: dict[tuple[str, int], Callable[[], object]] = {}
    for schedule, (others, words) in schedules.items():
        own = replace(config, schedule=schedule, random_subnets=others)
        training = start(family, random_dataset(batch), own, seed=0).by(Plan(STEPS))
        for segment, share in enumerate(middles):
            tasks[words, segment] = partial(two_steps, training, int(share * STEPS))
    seconds = interleaved_s(tasks, repeats)
    whole = {
        words: sum(share * seconds[words, i] for i, share in enumerate(shares))
        for _, words in schedules.values()
    }
    for words in (words for _, words in SCHEDULES.values()):
        ratios = whole[words] / whole[ALONE]
        task = f"training of {family.name} by {RECIPE.name}, batch {batch}, {words}"
        median, spread = float(np.median(ratios)), interquartile_range(ratios)
        yield Row(
            task, "times the training of its largest alone", "ratio", "lower", median, spread, {}, TRAINING
        )


def two_steps(training: Training, step: int) -> None:
    """Take an even and an odd step: in every second one the smallest subnet can take part."""
    for parity in (0, 1):
        take_step(training, step // 2 * 2 + parity, lambda: False)


def evaluation_rows(family: Family, dataset: ImageClassification, *, repeats: int) -> Iterator[Row]:
    """Seconds of an evaluation in each format, of a subnet of about `MACS`."""
    space, supernet = family.space(), family.supernet(rng=np.random.default_rng(0)).eval()
    drawn = [space.candidate(row) for row in space.sample(DRAWN, rng=np.random.default_rng(0))]
    chosen = min(drawn, key=lambda candidate: abs(mega_macs(family, candidate) - MACS / 1e6))
    calibration = calibration_examples(dataset, seed=0)
    for fmt in family.formats:  # type: ignore[attr-defined]
        candidate = uniform(family, chosen, fmt)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            network = build_network(family, supernet, candidate, dataset, calibration)
            simulated_metric(network, dataset.validation, dataset)
            seconds.append(time.perf_counter() - start)
        task = (
            f"evaluation, {fmt}, {mega_macs(family, candidate):.1f} MMACs, {len(dataset.validation):,} images"
        )
        median, spread = float(np.median(seconds)), interquartile_range(np.array(seconds))
        yield Row(task, "time", "s", "lower", median, spread, {}, EVALUATION_S)


def mega_macs(family: Family, candidate: Candidate) -> float:
    """Millions of multiply-adds."""
    return sum(map(macs, family.workload(candidate).layers)) / 1e6


def uniform(family: Family, candidate: Candidate, fmt: str) -> Candidate:
    """The same architecture with every layer in one format."""
    space, genes = family.space(), np.array(candidate.genes, np.int16)
    for column, choice in enumerate(space.choices):
        if choice.kind == "precision":
            genes[column] = choice.options.index(fmt)
    return space.candidate(genes)


def main() -> None:
    arguments = parse_arguments(__doc__, seeds=30)
    quick = arguments.quick
    family = load_family(SPACE, in_channels=3, classes=CLASSES, formats=("fp32", "int8", "int4"))
    dataset = random_dataset(500 if quick else IMAGES)
    keep_freed_memory()
    with one_core():
        repeats, batch = (5, QUICK_BATCH) if quick else (arguments.seeds, BATCH)
        rows = [*step_rows(family, dataset, batch=batch, repeats=repeats)]
        rows += training_rows(batch=16 if quick else 64, repeats=2 if quick else 7)
        rows += evaluation_rows(family, dataset, repeats=1 if quick else 3)
    report("supernet_step", rows, arguments.json)


if __name__ == "__main__":
    main()
