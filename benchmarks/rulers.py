"""Published CIFAR-10 networks as rulers for our fronts: what was published of their accuracy, and what we
measure of their latency. The two are never mixed: accuracy is of the authors' trained weights on the original
test set, latency is of the same architecture with random weights, which time does not depend on.

Every network is exported by torch and timed through ONNX Runtime on one image and one thread: as exported in
fp32, and in int8 as the faster one of what ONNX Runtime's quantizer makes of it and what ours does. All files
take turns in one run, and the largest and smallest networks of our CIFAR spaces beside them, so that a front
that was measured elsewhere can be compared by ratios.

    python benchmarks/rulers.py --front runs/ort runs/tvm --fixed FIXED --json benchmarks/results/rulers.json

`--front` puts the exported networks of finished runs into the same turns, those of own kernels too, and
`--fixed` what `joint_fixed.py` trained alone: all with their accuracy on the test part. `docs/draw_front.py`
draws such a result.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Row, argument_parser, one_core, report
from ruler_trained import (
    EveryKind,
    TrainedNetwork,
    fixed_networks,
    front_networks,
    reference_network,
    runtime_of,
)
from torch import Tensor, nn

from hw_profiles.graph.blocks import divisible
from hw_profiles.measure.measurement import Measurement, MeasurePlan
from hw_profiles.runtimes.plugin import device_kind, open_device
from hw_profiles.runtimes.runtime import Artifact, Runtime
from hw_profiles.runtimes.transports.local import Local
from nas.emit.rewrite_onnx import rewrite
from nas.emit.to_onnx import emit, random_network
from nas.emit.unit_formats import unit_formats
from nas.run.run import Run, find_run
from nas.tune.result.references import ORIGINAL, reference_files
from supernet.data.samples import Samples
from supernet.families.family import SIZES, load_family
from supernet.imported.import_onnx import import_onnx
from supernet.imported.import_torch import onnx_of
from supernet.ptq.quantize_model import quantize_model
from supernet.ptq.settings import PtqSettings

PIXELS, CLASSES, INPUT = 32, 10, "image"
DYNAMIC = "dynamic"  # the recipe that leaves convolutions in fp32
CALIBRATED_ON = 8  # random images: ranges do not change the time
SPACES = ("cifar-mbconv", "cifar-pooled")
ZOO = "github.com/chenyaofo/pytorch-cifar-models, README at 786c1625"
MLPERF = (
    "MLPerf Tiny's quality target, mlcommons.org/en/inference-tiny-05 (Banbury et al. 2021, arXiv:2106.07597)"
)


# -- the networks -------------------------------------------------------------------------------------


def conv(
    read: int, give: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: nn.Module | None = None
) -> nn.Sequential:
    """Return a convolution with batch norm, and an activation where one is given."""
    layers = [nn.Conv2d(read, give, kernel, stride, kernel // 2, groups=groups, bias=False)]
    return nn.Sequential(*layers, nn.BatchNorm2d(give), *([act] if act else []))


def ended(features: Sequence[nn.Module], channels: int) -> nn.Sequential:
    """Return a network that ends in pooling and a classifier."""
    ends = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))
    return nn.Sequential(*features, *ends)


class Sum(nn.Module):
    """What a branch and a shortcut give, added up."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.act = branch, shortcut, act

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, activated."""
        out: Tensor = self.act(self.branch(x) + self.shortcut(x))
        return out


def resnet(blocks: int) -> nn.Module:
    """Return the CIFAR ResNet of 6 n + 2 layers (He et al. 2016, arXiv:1512.03385, section 4.2), its
    shortcuts projections where shapes change.
    """
    features: list[nn.Module] = [conv(3, 16, 3, act=nn.ReLU())]
    read = 16
    for give in (16, 32, 64):
        for _ in range(blocks):
            stride = 2 if give > read else 1
            branch = nn.Sequential(conv(read, give, 3, stride, act=nn.ReLU()), conv(give, give, 3))
            shortcut = conv(read, give, 1, stride) if stride > 1 else nn.Identity()
            features.append(Sum(branch, shortcut, nn.ReLU()))
            read = give
    return ended(features, read)


def mobilenet_v2(width: float) -> nn.Module:
    """Return MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381) without the first two halvings."""
    read = divisible(32 * width)
    features: list[nn.Module] = [conv(3, read, 3, act=nn.ReLU6())]
    rows = (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expansion, channels, blocks, first in rows:
        give = divisible(channels * width)
        for stride in (first, *(1,) * (blocks - 1)):
            wide = read * expansion
            expand = [conv(read, wide, act=nn.ReLU6())] if expansion > 1 else []
            depthwise = conv(wide, wide, 3, stride, wide, nn.ReLU6())
            branch = nn.Sequential(*expand, depthwise, conv(wide, give))
            same = stride == 1 and read == give
            features.append(Sum(branch, nn.Identity(), nn.Identity()) if same else branch)
            read = give
    return ended([*features, conv(read, 1280, act=nn.ReLU6())], 1280)


class Shuffle(nn.Module):
    """A unit of ShuffleNetV2: two branches side by side, their channels interleaved."""

    def __init__(self, read: int, give: int, stride: int) -> None:
        super().__init__()
        half, self.split = give // 2, stride == 1
        inner = half if self.split else read
        skip = nn.Sequential(conv(read, read, 3, stride, read), conv(read, half, act=nn.ReLU()))
        self.skip = nn.Identity() if self.split else skip
        spatial = conv(half, half, 3, stride, half)
        self.branch = nn.Sequential(
            conv(inner, half, act=nn.ReLU()), spatial, conv(half, half, act=nn.ReLU())
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return both branches' channels, one of each in turns."""
        left, right = x.chunk(2, 1) if self.split else (x, x)
        y = torch.cat((self.skip(left), self.branch(right)), 1)
        _, channels, height, width = y.shape
        turned = y.reshape(1, 2, channels // 2, height, width).transpose(1, 2)
        return turned.reshape(1, channels, height, width)


def shufflenet_v2(channels: tuple[int, int, int]) -> nn.Module:
    """Return ShuffleNetV2 (Ma et al. 2018, arXiv:1807.11164) with a first convolution of stride 1 and no
    pooling after it.
    """
    features: list[nn.Module] = [conv(3, 24, 3, act=nn.ReLU())]
    read = 24
    for give, units in zip(channels, (4, 8, 4), strict=True):
        features += [Shuffle(read, give, 2), *(Shuffle(give, give, 1) for _ in range(units - 1))]
        read = give
    return ended([*features, conv(read, 1024, act=nn.ReLU())], 1024)


def repvgg_a0() -> nn.Module:
    """Return RepVGG-A0 (Ding et al. 2021, arXiv:2101.03697) as it is deployed, one 3x3 convolution a layer,
    without the first two halvings.
    """
    rows = ((48, 1, 1), (48, 2, 1), (96, 4, 2), (192, 14, 2), (1280, 1, 2))
    features, read = list[nn.Module](), 3
    for give, layers, first in rows:
        for stride in (first, *(1,) * (layers - 1)):
            features.append(conv(read, give, 3, stride, act=nn.ReLU()))
            read = give
    return ended(features, read)


@dataclass(frozen=True)
class Ruler:
    """A published network.

    Attributes:
        build: gives it with random weights.
        accuracy: published, on the original CIFAR-10 test set.
        source: of the accuracy, and of the multiply-adds where those are published.
        macs: published multiply-adds in millions; None where there are none.
        deployed: multiply-adds of the network that runs over those published: RepVGG's training form is
            counted there, with a 1x1 convolution beside each 3x3.
    """

    build: Callable[[], nn.Module]
    accuracy: float
    source: str
    macs: float | None = None
    deployed: float = 1.0


RULERS: Mapping[str, Ruler] = {
    "ResNet-20": Ruler(partial(resnet, 3), 0.9260, ZOO, 40.81),
    "MobileNetV2 x0.5": Ruler(partial(mobilenet_v2, 0.5), 0.9288, ZOO, 27.97),
    "ShuffleNetV2 x0.5": Ruler(partial(shufflenet_v2, (48, 96, 192)), 0.9013, ZOO, 10.90),
    "ShuffleNetV2 x1.0": Ruler(partial(shufflenet_v2, (116, 232, 464)), 0.9298, ZOO, 45.00),
    "RepVGG-A0": Ruler(repvgg_a0, 0.9439, ZOO, 489.08, 0.9),
    "MLPerf Tiny ResNet-8": Ruler(partial(resnet, 1), 0.85, MLPERF),
}


class Named(nn.Module):
    """A network whose input has the name that our own files give it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        """Return its logits."""
        logits: Tensor = self.net(image)
        return logits


# -- their files --------------------------------------------------------------------------------------


def files_of(name: str, folder: Path, seed: int = 0) -> dict[str, bytes]:
    """Return a network's files by what they are: `fp32` as exported, `int8: ...` as somebody quantizes it for
    ONNX Runtime; those that `folder` has are taken from there.
    """
    kept = folder / f"{name}.npz"
    if not kept.is_file():
        files = _made(RULERS[name], seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **{made: np.frombuffer(model, np.uint8) for made, model in files.items()})
    with np.load(kept) as arrays:
        return {made: arrays[made].tobytes() for made in arrays.files}


def _made(ruler: Ruler, seed: int) -> dict[str, bytes]:
    torch.manual_seed(seed)
    content = onnx_of(Named(ruler.build()).eval(), torch.zeros(1, 3, PIXELS, PIXELS))
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((CALIBRATED_ON, 1, 3, PIXELS, PIXELS)).astype(np.float32)
    calibration = Samples({INPUT: images})
    own, recipes = partial(all_int8, content, calibration), device_kind("ort").recipes
    files = reference_files(content, own, calibration, recipes)
    return {
        ORIGINAL if file.name == ORIGINAL else f"int8: {file.title}": file.model
        for file in files
        if file.model and file.name != DYNAMIC
    }


def all_int8(content: bytes, calibration: Samples) -> bytes:
    """Return our file of a network with every unit in int8 that can be."""
    runtime = open_device("ort").runtime
    assert runtime is not None
    model = import_onnx(content)
    formats = {
        name: ("int8",) for name, unit in unit_formats(model, runtime).items() if "int8" in unit.allowed
    }
    settings = PtqSettings(rounding_s=0.0)
    made = quantize_model(
        model,
        calibration,
        formats,
        sums=runtime.describe().sums,
        rng=np.random.default_rng(0),
        settings=settings,
    )
    return rewrite(made, dict.fromkeys(formats, "int8"))


def own_files() -> dict[tuple[str, str], bytes]:
    """Return the largest and the smallest networks of our spaces by name and format, with random weights."""
    files = {}
    for space in SPACES:
        family = load_family(space, in_channels=3, classes=CLASSES)
        for size in SIZES:
            for fmt in family.formats:
                work = family.workload(family.extreme(size, fmt))
                files[f"{space} {size}", fmt] = emit(random_network(work, rng=np.random.default_rng(0)))
    return files


# -- their times --------------------------------------------------------------------------------------


def measured_rows(
    files: Mapping[tuple[str, str], bytes],
    plan: MeasurePlan,
    trained: Sequence[TrainedNetwork] = (),
    kernels: Runtime | None = None,
) -> list[Row]:
    """Time all files in turns and return a row for each network and format: of several files of one format
    (named `int8: all int8 by us` and so on) that of the fastest, with all of them as peers.

    Args:
        trained: more networks for the same turns.
        kernels: the runtime of own kernels that built some of them.

    Raises:
        RuntimeError: none of the files of a row runs.
    """
    runtime: Any = EveryKind({"onnx": runtime_of("onnx")} | ({"library": kernels} if kernels else {}))
    artifacts = [*map(Artifact, files.values()), *(network.artifact for network in trained)]
    measured = Local().sample(runtime, artifacts, [None] * len(artifacts), plan)
    times, rest = dict(zip(files, measured, strict=False)), measured[len(files) :]
    rows = [
        replace(_row(network.title, network.formats, {network.formats: time}), peers=network.figures)
        for network, time in zip(trained, rest, strict=True)
    ]
    for name, fmt in dict.fromkeys((name, made.partition(":")[0]) for name, made in files):
        tried = {
            made: time
            for (each, made), time in times.items()
            if each == name and made.partition(":")[0] == fmt
        }
        rows.append(_row(name, fmt, tried))
    return rows


def _row(name: str, fmt: str, tried: Mapping[str, Measurement]) -> Row:
    ran = {made: time for made, time in tried.items() if time.error is None}
    if not ran:
        raise RuntimeError(f"{name}, {fmt}: {'; '.join(str(time.error) for time in tried.values())}")
    best = min(ran, key=lambda made: ran[made].median_s)
    peers = {made: time.median_s * 1e6 for made, time in ran.items() if len(tried) > 1}
    return Row(name, f"latency, {fmt}", "us", "lower", ran[best].median_s * 1e6, ran[best].iqr_s * 1e6, peers)


def main() -> None:
    """Print the table, write the JSON."""
    parser = argument_parser(__doc__, seeds=40)
    parser.add_argument(
        "--files", type=Path, metavar="DIR", help="keep the networks' files, and take those there"
    )
    parser.add_argument(
        "--front", type=Path, nargs="+", default=[], metavar="RUN", help="folders of finished runs"
    )
    parser.add_argument("--fixed", type=Path, metavar="DIR", help="networks that `joint_fixed.py` trained")
    arguments = parser.parse_args()
    names = ["MLPerf Tiny ResNet-8"] if arguments.quick else list(RULERS)
    files: dict[tuple[str, str], bytes] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            made = files_of(name, arguments.files or Path(temporary))
            files |= {(name, key): model for key, model in made.items()}
    files |= own_files()
    with one_core() as core:
        runs = [find_run(folder) for folder in arguments.front]
        own = any(run.device.describe().engine == "apache-tvm" for run in runs)
        kernels = runtime_of("library") if own else None
        trained = list(trained_networks_of(runs, arguments.fixed, kernels))
        plan = MeasurePlan(rounds=arguments.seeds, waiting_s=1.0 if arguments.quick else 40.0, core=core)
        report("rulers", measured_rows(files, plan, trained, kernels), arguments.json)


def trained_networks_of(
    runs: Sequence[Run], fixed: Path | None, kernels: Runtime | None
) -> Iterator[TrainedNetwork]:
    """Yield the networks of ours that are compared, with the first run's data; none without a run."""
    for run in runs:
        yield from front_networks(run, kernels)
    if runs:
        yield reference_network(runs[0])
        if fixed:
            yield from fixed_networks(runs[0], fixed)


if __name__ == "__main__":
    main()
