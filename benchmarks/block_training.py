"""What networks of different blocks learn in as many passes: one network of each block type and depth, all of
about as many multiply-adds, each trained alone by `examples/cifar-fast.toml`.

Stages are 1 : 3 : 4 wide, on maps of 16, 8 and 4 pixels when they end. Accuracy is that of the fp32 networks
on all of search-validation; hours are of one core; latency is that of the networks in int8 on ONNX Runtime,
all in the same turns. Every training has a folder in `--folder` and goes on where it was stopped: the same
command again.

    python benchmarks/block_training.py --threads 1 [--macs 26] [--epochs 5] [--folder DIR] [--json OUT]
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from block_speed import Time, million, times
from harness import Row, argument_parser, one_core, report
from train_recipe import ARCHIVE, EXAMPLE, few
from trained_alone import train_alone

from hw_profiles.graph.blocks import divisible
from hw_profiles.measure.measurement import MeasurePlan
from nas.run.config_file import read_config
from nas.run.reporting import PlainReporter
from supernet.families.staged import Stage, StagedFamily
from supernet.tasks.evaluate import build_network, calibration_examples, simulated_metric
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from supernet.train.checkpoint import load_checkpoint
from supernet.train.config import TrainConfig

NETWORKS = (("pooled", 1), ("pooled", 2), ("basic", 1), ("basic", 2), ("fused-relu", 2), ("bottleneck", 3))
WIDTHS = (1, 3, 4)  # of the stages, in steps
STEP, MOST_STEPS = 4, 32  # channels, rounded to multiples of 8; steps that are tried
RESOLUTIONS = (20, 24, 28, 32)  # small images come first
STEM, HEAD, PERCENT = 32, 256, {"inverted": 400}


@dataclass(frozen=True)
class Network:
    """One network of each block type: all of its stages have the blocks and as many of them."""

    block: str
    depth: int

    @property
    def name(self) -> str:
        """How rows and folders name it."""
        return f"{self.block} x{self.depth}"

    def family(self, steps: int, classes: int) -> StagedFamily:
        """Return the family of it alone, its widths so many times the least."""
        percents = (PERCENT.get(self.block, 100),)
        stages = tuple(
            Stage(self.block, (divisible(steps * STEP * width),), 2, (self.depth,), (3,), percents)
            for width in WIDTHS
        )
        name = f"{self.block}-{self.depth}-{steps}"
        return StagedFamily(
            name, RESOLUTIONS, (STEM,), stages, HEAD, 3, classes, ("fp32", "int8"), stem_stride=1
        )

    def of_macs(self, mega_macs: float, classes: int) -> StagedFamily:
        """Return the family of it alone whose multiply-adds come closest."""
        families = [self.family(steps, classes) for steps in range(1, MOST_STEPS + 1)]
        return min(families, key=lambda family: abs(mega_macs_of(family) - mega_macs))


def mega_macs_of(family: StagedFamily) -> float:
    """Return the multiply-adds of the largest network, in millions."""
    return million(family.workload(family.extreme("largest", "fp32")))


def accuracy_and_hours(
    network: Network, family: StagedFamily, data: ImageClassification, recipe: TrainConfig, folder: Path
) -> tuple[float, float]:
    """Train a network, or find it trained; returns its accuracy and its core-hours."""
    path = folder / family.name / "last.pt"
    net = train_alone(
        family, data, recipe, path, seed=recipe_seed(), name=network.name, reporter=PlainReporter()
    )
    built = build_network(
        family,
        net,
        family.extreme("largest", "fp32"),
        data,
        calibration_examples(data, seed=recipe_seed()),
    )
    state = load_checkpoint(path, fingerprint=family.space().fingerprint)
    return simulated_metric(built, data.validation, data), float(state["seconds"]) * recipe.threads / 3600


def recipe_seed() -> int:
    """Return the seed of the recipe, which divides the images."""
    return read_config(EXAMPLE).seed


def rows_of(
    families: Mapping[Network, StagedFamily],
    learned: Mapping[Network, tuple[float, float]],
    latency: Mapping[tuple[object, ...], Time],
) -> list[Row]:
    """Return accuracy, hours and latency of each network."""
    rows = []
    for network, family in families.items():
        accuracy, hours = learned[network]
        task, time = f"{network.name}, {mega_macs_of(family):.1f} MMACs", latency[network.name,]
        rows += [
            Row(task, "accuracy, fp32", "%", "higher", 100 * accuracy, 0.0),
            Row(task, "training", "core-hours", "lower", hours, 0.0),
            Row(task, "latency, int8", "us", "lower", time.median, time.spread),
        ]
    return rows


def main() -> None:
    """Run, print and write."""
    parser = argument_parser(__doc__, seeds=24)
    parser.add_argument("--macs", type=float, default=26, metavar="M", help="millions (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5, metavar="N", help="passes (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: %(default)s)")
    parser.add_argument(
        "--amp", choices=("bf16", "off"), default="bf16", help="activations (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/block_training"), metavar="DIR")
    arguments = parser.parse_args()
    data = load_images(f"cifar10:{arguments.data / ARCHIVE}", seed=recipe_seed())
    recipe = replace(
        read_config(EXAMPLE).train,
        budget="",
        schedule="largest",
        alone=0.0,
        epochs=1 if arguments.quick else arguments.epochs,
        threads=arguments.threads,
        amp=arguments.amp,
    )
    networks = [Network(*each) for each in (NETWORKS[:2] if arguments.quick else NETWORKS)]
    if arguments.quick:
        data, recipe = few(data, 256, 100), replace(recipe, batch_size=64)
    torch.set_num_threads(recipe.threads)
    families = {network: network.of_macs(arguments.macs, len(data.classes)) for network in networks}
    learned = {
        network: accuracy_and_hours(network, family, data, recipe, arguments.folder)
        for network, family in families.items()
    }
    with one_core() as core:
        plan = MeasurePlan(rounds=4 if arguments.quick else arguments.seeds, waiting_s=10.0, core=core)
        int8 = {
            (network.name,): family.workload(family.extreme("largest", "int8"))
            for network, family in families.items()
        }
        latency = times(int8, plan)
    report("block_training", rows_of(families, learned, latency), arguments.json)


if __name__ == "__main__":
    main()
