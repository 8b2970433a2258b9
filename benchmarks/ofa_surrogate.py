"""Once-for-all's MobileNetV3 space (width 1.0, 224 pixels) with a surrogate of its accuracy and exact MACs.

The surrogate stands for real evaluations: `surrogate_readme.md` beside its file says what it was fitted to.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ofa_mbv3 import BLOCKS, STAGES, ofa_space, published_layers, unit_table

from hw_profiles.graph.counts import macs
from nas.search.pareto import Matrix, hypervolume
from predictors.table import CostTable
from supernet.space.space import Genomes, Option, SearchSpace

TOP1, MEGAMACS = (70.0, 78.0), (120.0, 570.0)  # what hypervolume is normalised by
REFERENCE = (0.0, 1.0)  # in normalised units, accuracy negated: 70 % and 570 M
CENTRE, SCALE = 5.5, 0.35  # of the logarithm of 10^6 multiply-adds
TOP1_TOLERANCE = 1e-3  # points; the surrogate's weights are float32


def surrogate_slot(choice: str, option: Option, options: Sequence[Option]) -> int | None:
    """Which of the surrogate's 136 inputs is 1 for a choice; resolution has none."""
    if choice == "resolution":
        return None
    place, _, part = choice.rpartition(".")
    s, b = int(place[1]), int(place.partition(".b")[2] or 0)
    start = {"kernel": 3 * (BLOCKS * s + b), "expand": 60 + 3 * (BLOCKS * s + b), "depth": 120 + 3 * s}[part]
    return start + options.index(option)


class Surrogate:
    """(n, g) canonical genomes -> (n,) top-1 in percent; counts what it is asked for.

    Attributes:
        space: 41 living choices.
        table: exact multiply-adds.
    """

    def __init__(self, data: Path) -> None:
        self.space: SearchSpace = ofa_space((224,))
        self.table: CostTable = unit_table(
            self.space, published_layers("ofa-mbv3"), lambda placed: macs(placed[1])
        )
        with np.load(data / "subnets" / "surrogate_mlp5.npz") as file:
            self._weights = {name: file[name] for name in file.files}
        self._slots = [
            surrogate_slot(choice.name, option, choice.options)
            for choice in self.space.choices
            for option in choice.options
        ]

    def __call__(self, genomes: Genomes) -> np.ndarray:
        features = np.zeros((len(genomes), 136))
        hot = self.space.one_hot(genomes)
        for position, slot in enumerate(self._slots):
            if slot is not None:
                features[:, slot] = hot[:, position]
        features[:, 135] = (np.log(self.table(genomes)[:, 0] / 1e6) - CENTRE) / SCALE
        members = [self._member(features, i) for i in range(int(self._weights["n"]))]
        return np.asarray(np.mean(members, axis=0) * self._weights["sd"] + self._weights["mu"])

    def _member(self, x: np.ndarray, i: int) -> np.ndarray:
        for layer in (0, 2, 4):
            x = x @ self._weights[f"w{i}_{layer}"] + self._weights[f"w{i}_{layer + 1}"]
            x = np.maximum(x, 0) if layer < 4 else x
        return x[:, 0]

    def check(self, path: Path) -> None:
        """Eight networks with known answers."""
        known = json.loads(path.read_text())
        genomes = np.zeros((len(known), len(self.space.choices)), np.int16)
        for row, entry in enumerate(known):
            for s in range(len(STAGES)):
                self._put(genomes[row], f"s{s}.depth", entry["d"][s])
                for b in range(BLOCKS):
                    self._put(genomes[row], f"s{s}.b{b}.kernel", entry["ks"][BLOCKS * s + b])
                    self._put(genomes[row], f"s{s}.b{b}.expand", entry["e"][BLOCKS * s + b])
        genomes = self.space.canonical(genomes)
        top1 = [entry["top1"] for entry in known]
        np.testing.assert_array_equal(self.table(genomes)[:, 0], [entry["macs"] for entry in known])
        np.testing.assert_allclose(self(genomes), top1, rtol=0, atol=TOP1_TOLERANCE)

    def _put(self, genome: np.ndarray, choice: str, option: Option) -> None:
        column = self.space.columns[choice]
        options = self.space.choices[column].options
        genome[column] = options.index(option) if option in options else 0

    def normalised(self, top1: np.ndarray, genomes: Genomes) -> Matrix:
        """(n, 2) minimised: accuracy negated and multiply-adds, so that hypervolume lies in 0..1."""
        megamacs = self.table(genomes)[:, 0] / 1e6
        return np.column_stack(
            (
                -(top1 - TOP1[0]) / (TOP1[1] - TOP1[0]),
                (megamacs - MEGAMACS[0]) / (MEGAMACS[1] - MEGAMACS[0]),
            )
        )


def volume(objectives: Matrix) -> float:
    """Hypervolume of everything evaluated."""
    return hypervolume(objectives, REFERENCE)
