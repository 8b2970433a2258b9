"""Once-for-all's MobileNetV3 space with its published accuracy predictor and a published latency table.

Cai et al. 2020, arXiv:1908.09791; files from han-cai/files, described in the data folder's README.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.mkldnn import to_mkldnn

from hw_profiles.graph.layer import FP32, Layer
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.published_tables import import_table
from predictors.table import CostTable, compile_table
from supernet.families.family import CostTerm, load_family
from supernet.families.ofa_mobile import EXPANDS, KERNELS, MobileFamily, MobileLayers
from supernet.space.space import Choice, Genomes, SearchSpace
from supernet.space.varying import Varying, constant, lift

DEPTHS, RESOLUTIONS = (2, 3, 4), (160, 176, 192, 208, 224)  # resolutions of the table
BLOCKS = max(DEPTHS)
STEM = 24  # channels; this and the following rows are those of width multiplier 1.2
STAGES = (
    (32, 2, 0, 0),
    (48, 2, 1, 0),
    (96, 2, 0, 1),
    (136, 1, 1, 1),
    (192, 2, 1, 1),
)  # width, stride, SE, h-swish
HEAD, FEATURES, CLASSES = 1152, 1536, 1000
ROWS = 512  # predicted at once: activations stay inside a core's second-level cache

Lut = Mapping[str, Mapping[str, Mapping[str, float]]]  # resolution -> key -> {mean ms, std, count}


def ofa_space(resolutions: Sequence[int] = RESOLUTIONS) -> SearchSpace:
    """46 choices, about 10^20 networks."""
    choices = [Choice("resolution", tuple(resolutions), role="resolution")]
    for s in range(len(STAGES)):
        choices.append(Choice(f"s{s}.depth", DEPTHS, role="depth", stage=s))
        for b in range(BLOCKS):
            deeper = tuple(depth for depth in DEPTHS if depth > b)
            alive = ((f"s{s}.depth", deeper),) if len(deeper) < len(DEPTHS) else ()
            choices.append(Choice(f"s{s}.b{b}.kernel", KERNELS, "architecture", alive, "kernel", s, b))
            choices.append(Choice(f"s{s}.b{b}.expand", EXPANDS, "pruning", alive, "expand", s, b))
    return SearchSpace("ofa-mbv3", tuple(choices))


# -- accuracy ------------------------------------------------------------


def published_weights(data: Path) -> dict[str, np.ndarray]:
    """W1..W4 (out, in) and b1..b4 of the predictor, float32."""
    with np.load(data / "ofa" / "ofa_mbv3_acc_predictor.npz") as file:
        return {name: file[name].astype(np.float32) for name in file.files}


def published_slot(choice: str, option: int) -> int | None:
    """Which of the predictor's 128 inputs is 1 for a choice; depth has none."""
    if choice == "resolution":
        return 120 + (option - 112) // 16
    place, _, part = choice.rpartition(".")
    if part == "depth":
        return None
    s, b = (int(name[1:]) for name in place.split("."))
    options, offset = (KERNELS, 0) if part == "kernel" else (EXPANDS, 60)
    return offset + 3 * (BLOCKS * s + b) + options.index(option)


class AccuracyModel:
    """The published predictor reading our one-hot encoding: (n, g) genomes -> (n,) top-1 in 0..1.

    Runs in oneDNN's own layout, which needs half the time of torch's and numpy's matrix product on AMD cores.
    """

    def __init__(self, space: SearchSpace, weights: Mapping[str, np.ndarray]) -> None:
        slots = [published_slot(choice.name, option) for choice in space.choices for option in choice.options]
        known = [position for position, slot in enumerate(slots) if slot is not None]
        first = np.zeros((len(weights["W1"]), len(slots)), np.float32)
        first[:, known] = weights["W1"][:, [slots[position] for position in known]]
        matrices = [first, *(weights[f"W{layer}"] for layer in (2, 3, 4))]
        layers: list[nn.Module] = []
        for position, matrix in enumerate(matrices, start=1):
            linear = nn.Linear(*matrix.shape[::-1])
            linear.weight.data = torch.from_numpy(matrix)
            linear.bias.data = torch.from_numpy(weights[f"b{position}"])
            layers += [linear, nn.ReLU(inplace=True)]
        self.space = space
        self.net = to_mkldnn(nn.Sequential(*layers[:-1]).eval())

    def __call__(self, genomes: Genomes) -> np.ndarray:
        out = np.empty(len(genomes), np.float32)
        with torch.inference_mode():
            for start in range(0, len(genomes), ROWS):
                encoded = torch.from_numpy(self.space.one_hot(genomes[start : start + ROWS]))
                out[start : start + ROWS] = self.net(encoded.to_mkldnn()).to_dense().numpy()[:, 0]
        return out


# -- latency -------------------------------------------------------------


def published_lut(data: Path) -> Lut:
    """The Samsung Note10 table as published, for look-ups by name."""
    lut: Lut = json.loads((data / "ofa" / "note10_latency_lut.json").read_text())
    return lut


def _size(resolution: int, halvings: int) -> int:
    for _ in range(halvings):
        resolution = -(-resolution // 2)
    return resolution


def _tensor(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"


def block_key(resolution: int, s: int, b: int, kernel: int, expand: int) -> str:
    """The table's name of block `b` of stage `s`."""
    width, stride, se, hs = STAGES[s]
    entry = width if b else (STEM if s == 0 else STAGES[s - 1][0])
    halved = 1 + sum(stage[1] == 2 for stage in STAGES[: s + bool(b)])
    stride = stride if b == 0 else 1
    source, target = (
        _tensor(_size(resolution, halved), entry),
        _tensor(_size(resolution, halved + stride // 2), width),
    )
    return (
        f"expanded_conv-input:{source}-output:{target}-expand:{entry * expand}"
        f"-kernel:{kernel}-stride:{stride}-idskip:{int(b > 0)}-se:{se}-hs:{hs}"
    )


def fixed_keys(resolution: int) -> tuple[str, ...]:
    """What every network has: stem, first block, head and classifier."""
    half, last, width = _size(resolution, 1), _size(resolution, 5), STAGES[-1][0]
    stem = _tensor(half, STEM)
    return (
        f"Conv-input:{_tensor(resolution, 3)}-output:{stem}",
        f"expanded_conv-input:{stem}-output:{stem}-expand:{STEM}-kernel:3-stride:1-idskip:1-se:0-hs:0",
        f"Conv_1-input:{_tensor(last, width)}-output:{_tensor(last, HEAD)}",
        f"AvgPool2D-input:{_tensor(last, HEAD)}-output:{_tensor(1, HEAD)}",
        f"Conv_2-input:{_tensor(1, HEAD)}-output:{_tensor(1, FEATURES)}",
        f"Logits-input:{_tensor(1, FEATURES)}-output:{CLASSES}",
    )


def published_profiles(data: Path) -> Mapping[int, DeviceProfile]:
    """The Samsung Note10 table, imported: resolution -> profile of the units measured at it."""
    path = data / "ofa" / "note10_latency_lut.json"
    return {resolution: import_table(path, resolution=resolution) for resolution in RESOLUTIONS}


def published_layers(name: str = "ofa-mbv3-w1.2") -> MobileLayers:
    """The units of a registered space."""
    family = load_family(name, in_channels=3, classes=CLASSES)
    assert isinstance(family, MobileFamily)
    return family.layers


Placed = tuple[int, Layer]  # a unit in a network of this resolution


def latency_table(space: SearchSpace, profiles: Mapping[int, DeviceProfile]) -> CostTable:
    """(n, g) genomes -> (n, 1) seconds."""
    units = published_layers()
    return unit_table(space, units, lambda placed: profiles[placed[0]].cost_s(placed[1]))


def unit_table(space: SearchSpace, units: MobileLayers, cost: Callable[[Placed], float]) -> CostTable:
    """(n, g) genomes -> (n, 1) summed costs of a network's units.

    A unit's place (resolution, unit) stands where a layer would: the classifier, whose input does not depend
    on the resolution, was measured at each of them.
    """
    resolutions = space.choices[0].options
    family = MobileFamily("units", units, 1e-5, (FP32,), tuple(map(int, resolutions)))
    names, column = [choice.name for choice in family.space().choices], space.columns["resolution"]
    resolution, terms = Varying((column,), np.arange(len(resolutions)), resolutions), []

    def place(there: bool, layer: Layer, resolution: int) -> tuple[Placed, ...]:
        return ((resolution, layer),) if there else ()

    for unit in family.trace.layers:
        placed = constant(lift(place, unit.there, unit.spec, resolution))
        columns = tuple(space.columns[names[column]] for column in placed.columns)
        terms.append(CostTerm(columns, (replace(placed, columns=columns),)))
    return compile_table(space, terms, [cost])
