"""Accuracies in APQ's space: a supernet of our own on CIFAR-10, trained shortly, and samples of it.

Writes `apq_samples.npz`, which benchmarks/joint_apq.py fits its accuracy model on. `--folder` keeps the
checkpoint and what was evaluated so far: a stopped run goes on there. The networks have exactly the genes of
`apq-proxyless` at 224 pixels, so that a genome has an accuracy from here and costs from APQ's table; only the
images are smaller.

Samples are of all sizes, a part of them in fp32 and the others of random bit-widths. Each is evaluated on the
same images of search-validation. Rounded networks have scales of the least error, found once for the whole
supernet on a few images, and batch norm recalibrated with everything rounded: enough for 4 bits to be far
above chance without any quantized training.
"""

import argparse
import io
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hw_profiles.files import write_atomic
from hw_profiles.graph.layer import FP32
from nas.run.reporting import PlainReporter, Reporter, progress_bar
from nas.search.algorithms.evolution import tilted_sample
from nas.stages.sample import vary_share
from supernet.derive.choosing import Choose
from supernet.families.apq import ApqFamily
from supernet.space.space import Candidate, Genomes, in_fp32
from supernet.tasks.evaluate import calibration_examples, network_builder, simulated_metric
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from supernet.train.checkpoint import load_checkpoint
from supernet.train.config import TrainConfig
from supernet.train.loop import load_supernet, train
from supernet.train.quantized import first_quantizers

PIXELS = 40  # CIFAR-10's 32, enlarged: the last maps are then 2 x 2, and kernels still matter there
TRAINED, STEPS = 18_000, 154  # images of the recipe's pass, and steps after which it is stopped
RECIPE = TrainConfig(
    epochs=1, batch_size=32, learning_rate=3e-3, random_subnets=1, flip=True, checkpoint_s=60.0
)
ENDED = 3_072  # images of a second pass, from there to a learning rate of 0
SAMPLES = Path(__file__).parent / "apq_samples.npz"
SEED = 0
CALIBRATED, SCALED = 384, 96  # training images, for batch norm and for scales
EVALUATED = 500  # images of search-validation, the same for every sample
IN_FP32 = 4  # every so many samples one is in fp32
SAVED = 10  # samples between two writes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SmallImages(ApqFamily):
    """APQ's networks, and their genomes, on images of `PIXELS`."""

    def input_size(self, choose: Choose) -> int:
        return PIXELS


def trained(family: ApqFamily, dataset: ImageClassification, folder: Path, reporter: Reporter) -> nn.Module:
    """The supernet, trained or with its training finished: a pass that is stopped, and one that ends it."""
    begun, ended, done = folder / "begun.pt", folder / "supernet.pt", 0

    def stop() -> bool:
        return done + 1 >= STEPS

    with progress_bar(reporter, "train", STEPS + ENDED // RECIPE.batch_size) as update:
        if (
            not begun.exists()
            or load_checkpoint(begun, fingerprint=family.space().fingerprint)["step"] < STEPS
        ):
            for progress in train(family, part(dataset, TRAINED), RECIPE, begun, seed=SEED, stop=stop):
                done = progress.step
                update(done, f"loss {progress.loss:.3f}")
        last = replace(RECIPE, init=str(begun), warmup=0.0)
        for progress in train(family, part(dataset, ENDED), last, ended, seed=SEED + 1):
            update(STEPS + progress.step, f"loss {progress.loss:.3f}")
    return load_supernet(family, ended)


def part(dataset: ImageClassification, n: int) -> ImageClassification:
    """With `n` of the training images."""
    rows = np.random.default_rng(SEED).permutation(len(dataset.train))[:n]
    return replace(dataset, train=dataset.train[rows])


def drawn(family: ApqFamily, n: int) -> Genomes:
    """(c + n, g) what to evaluate, in order: the corners, then networks of all sizes."""
    space, rng = family.space(), np.random.default_rng([SEED, 1])
    genomes = tilted_sample(space, n, rng=rng)
    plain, rounded = in_fp32(space, genomes), vary_share(space, genomes, rng=rng)
    chosen = np.where(np.arange(n)[:, None] % IN_FP32 == 0, plain, rounded)
    corners = np.array([corner.genes for corner in family.extremes().values()], np.int16)
    return np.concatenate((corners, space.canonical(chosen.astype(np.int16))))


def evaluator(
    family: ApqFamily, net: nn.Module, dataset: ImageClassification
) -> Callable[[Candidate], float]:
    """Share of right labels of a network, in 0..1."""
    scales = first_quantizers(family, net, dataset, images=SCALED, seed=SEED).eval()
    calibration = calibration_examples(dataset, seed=SEED)[np.arange(CALIBRATED)]
    rows = np.random.default_rng([SEED, 6]).permutation(len(dataset.validation))[:EVALUATED]
    images, plain = dataset.validation[rows], family.formats.index(FP32)

    def accuracy(candidate: Candidate) -> float:
        quantizers = None if candidate.genes[0] == plain else scales  # the first gene is `policy`
        network = network_builder(family, net, candidate, dataset, calibration, quantizers)(candidate)
        return simulated_metric(network, images, dataset)

    return accuracy


def known(path: Path) -> Floats:
    """(k,) accuracies of the first samples that were evaluated before."""
    if not path.exists():
        return np.empty(0)
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["accuracy"], np.float64)


def write(path: Path, genomes: Genomes, accuracy: Floats) -> None:
    """The samples, and where they come from; plain arrays."""
    version = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        genomes=genomes.astype(np.int8),
        accuracy=accuracy.astype(np.float32),
        images=np.array(EVALUATED),
        commit=np.array(version.stdout.strip()),
        recipe=np.array(f"{PIXELS} pixels, {STEPS} steps, {ENDED // RECIPE.batch_size} steps to 0, {RECIPE}"),
    )
    write_atomic(path, buffer.getvalue())


def main(words: Sequence[str] | None = None) -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="SOURCE", help="such as cifar10:PATH")
    parser.add_argument("--folder", type=Path, required=True, help="for checkpoint and decoded images")
    parser.add_argument("--samples", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=SAMPLES, metavar="NPZ", help="default: %(default)s")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    reporter, dataset = PlainReporter(), load_images(arguments.data, seed=SEED, cache=arguments.folder)
    family = SmallImages("apq-proxyless", dataset.channels, len(dataset.classes))
    net = trained(family, dataset, arguments.folder, reporter)
    space = family.space()
    genomes, answers = drawn(family, arguments.samples), list(known(arguments.out))
    accuracy = evaluator(family, net, dataset)
    with progress_bar(reporter, "evaluate", len(genomes)) as update:
        while len(answers) < len(genomes):
            answers.append(accuracy(space.candidate(genomes[len(answers)])))
            update(len(answers), f"accuracy {answers[-1]:.3f}")
            if len(answers) % SAVED == 0 or len(answers) == len(genomes):
                write(arguments.out, genomes[: len(answers)], np.array(answers))


if __name__ == "__main__":
    main()
