"""The network that nobody searched: MLPerf Tiny's ResNet-8 (Banbury et al. 2021, arXiv:2106.07597) at several
widths, each trained alone by the recipe of a supernet, for as many passes and on the same data.

    python benchmarks/joint_fixed.py --run RUN -o DIR

writes `DIR/resnet8-x1.pt` and its like, which `--fixed DIR` of `joint_vs_sequential.py` and of `rulers.py`
takes up; RUN is the folder in which the supernet was trained. Stopped, the same command goes on. Images begin
small where the recipe has them so.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from harness import Row, argument_parser, report
from trained_alone import recipe, train_alone

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.blocks import divisible
from hw_profiles.graph.counts import macs
from nas.evaluation.builder import NetworkBuilder
from nas.run.reporting import PlainReporter, Reporter
from nas.run.run import Run, find_run
from nas.run.stopping import stop_on_signals
from supernet.families.cifar_resnet import WIDTHS, CifarResNet
from supernet.families.family import Family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.tasks.evaluate import build_network, simulated_metric
from supernet.train.initial import NONE
from supernet.train.loop import load_supernet
from supernet.train.sampling import resolution_options

SCALES = (0.5, 1.0, 1.5)
PIXELS = 32  # that ResNet-8 sees


@dataclass(frozen=True)
class FixedNetwork:
    """A network that was trained alone, or is to be.

    Attributes:
        name: of it, and of its checkpoint.
        family: of which it is the largest.
        path: of the checkpoint.
    """

    name: str
    family: Family
    path: Path

    def quantized(self, run: Run, fmt: str = "int8") -> QuantizedGraph:
        """Return the trained network with every layer in one format, calibrated as networks of `run` are.

        Raises:
            TrilobitError: it is not trained to its end.
        """
        net, builder = load_supernet(self.family, self.path), NetworkBuilder(run)
        candidate = self.family.extreme("largest", fmt)
        return build_network(self.family, net, candidate, run.task, builder.calibration, sums=run.sums)


def fixed_network(scale: float, run: Run, folder: Path) -> FixedNetwork:
    """Return ResNet-8 with channels scaled and rounded to multiples of 8."""
    name = f"resnet8-x{scale:g}"
    smaller = tuple(size for size in resolution_options(run.family) if size < PIXELS)
    family = CifarResNet(
        name,
        1,
        run.images.channels,
        len(run.images.classes),
        widths=tuple(divisible(scale * width) for width in WIDTHS),
        resolutions=(*smaller, PIXELS),
    )
    return FixedNetwork(name, family, folder / f"{name}.pt")


def trained_networks(run: Run, folder: Path) -> list[FixedNetwork]:
    """Return the networks whose checkpoints are in a folder, the narrowest first.

    Raises:
        TrilobitError: there are none.
    """
    names = sorted(folder.glob("resnet8-x*.pt"))
    scales = sorted(float(path.stem.removeprefix("resnet8-x")) for path in names)
    if not scales:
        raise TrilobitError(
            f"{folder}: no trained fixed networks; run `benchmarks/joint_fixed.py --run RUN -o {folder}`"
        )
    return [fixed_network(scale, run, folder) for scale in scales]


def train_fixed(network: FixedNetwork, run: Run, passes: int | None, reporter: Reporter) -> tuple[int, float]:
    """Train a network, or finish that; returns passes over the images, and seconds that they took now."""
    config = recipe(run)
    config = replace(config, epochs=passes or config.epochs, init=NONE)
    torch.set_num_threads(config.threads)
    begin = time.monotonic()
    with stop_on_signals() as stop:
        train_alone(
            network.family,
            run.task,
            config,
            network.path,
            seed=run.config.seed,
            name=network.name,
            reporter=reporter,
            stop=stop,
        )
    return config.epochs, time.monotonic() - begin


def rows_of(network: FixedNetwork, run: Run, passes: int, seconds: float) -> Iterator[Row]:
    """Yield a trained network's accuracy on the test part by simulation, in fp32 and int8."""
    work = network.family.workload(network.family.extreme("largest"))
    peers = {"MMACs": sum(map(macs, work.layers)) / 1e6, "passes": float(passes), "seconds now": seconds}
    for fmt in network.family.formats:
        accuracy = simulated_metric(network.quantized(run, fmt), run.task.test, run.task)
        yield Row(f"{network.name}, {fmt}", "test accuracy", "share", "higher", accuracy, 0.0, peers)


def main() -> None:
    """Train what is not trained, print the table, write the JSON."""
    parser = argument_parser(__doc__, seeds=1)
    parser.add_argument("--run", type=Path, required=True, help="folder in which the supernet was trained")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="of checkpoints")
    parser.add_argument(
        "--scales", type=float, nargs="+", default=SCALES, help="of the channels (default: %(default)s)"
    )
    parser.add_argument("--passes", type=int, help="over the images (default: as many as the supernet had)")
    arguments = parser.parse_args()
    reporter, run = PlainReporter(partial(print, file=sys.stderr)), find_run(arguments.run)
    rows: list[Row] = []
    for scale in arguments.scales:
        network = fixed_network(scale, run, arguments.output)
        passes, seconds = train_fixed(network, run, 1 if arguments.quick else arguments.passes, reporter)
        rows += rows_of(network, run, passes, seconds)
    report("joint_fixed", rows, arguments.json)


if __name__ == "__main__":
    main()
