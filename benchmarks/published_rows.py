"""Published measurements of subnets as genomes, targets and free costs: what predictors are judged on.

Sources and licences: the README of the data. Each set may hold other rows than those here, of the same form.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.formats import tensor_bits, weight_bits
from hw_profiles.graph.layer import Layer
from predictors.features import ARCHITECTURE
from predictors.table import CostTable, compile_table
from supernet.families.bert_published import PublishedRows as BertRows
from supernet.families.bert_published import from_published as from_bert
from supernet.families.encoder import bert_base
from supernet.families.family import load_family
from supernet.families.ofa_resnet import ofa_resnet50
from supernet.families.ofa_resnet_published import PublishedConfig, from_published, living_layers
from supernet.space.space import Choice, Genomes, SearchSpace, row_keys

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]  # (n,) which rows

ROUNDING = ("symmetric", "asymmetric")  # of int8 weights


@dataclass(frozen=True, eq=False)
class PublishedRows:
    """Measured subnets of one space.

    Attributes:
        name: of the data and what was measured.
        space: they are of.
        genomes: (n, g) canonical.
        targets: (n,) as measured.
        costs: multiply-adds, parameters, and what else is known of a network for free.
    """

    name: str
    space: SearchSpace
    genomes: Genomes
    targets: Floats
    costs: CostTable

    def draw(self, n: int, *, rng: np.random.Generator, unseen: bool = True) -> tuple[Rows, Rows]:
        """`n` random rows to learn from, and others to test.

        Args:
            unseen: whether rows are drawn architecture by architecture, and tested are all of the others.
                Otherwise they are drawn one by one and tested is every other row, some of which may be of
                networks that were learned.

        Raises:
            ValueError: there are not that many rows.
        """
        if n >= len(self.targets):
            raise ValueError(f"{n} rows to learn from and others to test, of {len(self.targets)}")
        if not unseen:
            order = rng.permutation(len(self.targets))
            return order[:n], order[n:]
        columns = [c for c, choice in enumerate(self.space.choices) if choice.kind in ARCHITECTURE]
        _, group = np.unique(row_keys(self.genomes[:, columns]), return_inverse=True)
        order = np.argsort(rng.permutation(group.max() + 1)[group], kind="stable")
        return order[:n], np.flatnonzero(~np.isin(group, group[order[:n]]))


def ofa_mobilenet(data: Path) -> PublishedRows:
    """Top-1 in percent on ImageNet of OFA-MobileNetV3 (width 1.0) at 224 pixels in fp32."""
    family = load_family("ofa-mbv3", in_channels=3, classes=1000, formats=("fp32",))
    space, rows = family.space(), np.load(data / "subnets" / "ofa_mbv3_w10.npz")
    genomes = np.zeros((len(rows["top1"]), len(space.choices)), np.int16)

    def put(name: str, values: NDArray[np.int8]) -> None:
        column = space.columns[name]
        genomes[:, column] = np.searchsorted(space.choices[column].options, values)

    put("resolution", np.full(len(genomes), 224))
    for s in range(5):
        put(f"s{s}.depth", rows["d"][:, s])
        for b in range(4):  # 0, of a block that is absent, becomes gene 0
            put(f"s{s}.b{b}.kernel", rows["ks"][:, 4 * s + b])
            put(f"s{s}.b{b}.expand", rows["e"][:, 4 * s + b])
    costs = compile_table(space, family.terms(), (macs, params))
    return PublishedRows("OFA-MBv3 top-1, %", space, space.canonical(genomes), rows["top1"], costs)


def ofa_resnet(data: Path, target: str) -> PublishedRows:
    """OFA-ResNet50 with int8 or fp32 and a rounding of the weights for every convolution; `target` is `top1`,
    in percent on ImageNet, or `latency_norm`.
    """
    family = ofa_resnet50(in_channels=3, classes=1000, formats=("fp32", "int8"))
    plain, rows = family.space(), np.load(data / "subnets" / "ofa_r50_joint_quant.npz")
    convolutions = [c.name.removesuffix(".format") for c in plain.choices if c.kind == "precision"][:-1]
    roundings = [
        Choice(f"{name}.rounding", ROUNDING, "precision", ((f"{name}.format", ("int8",)),), "rounding")
        for name in convolutions
    ]
    space = SearchSpace("ofa-resnet50-roundings", (*plain.choices, *roundings))
    genomes = np.zeros((len(rows["d"]), len(space.choices)), np.int16)
    for i, genome in enumerate(genomes):
        ratios = tuple(round(float(e), 2) for e in rows["e"][i])
        numbers = (tuple(rows[key][i].tolist()) for key in ("d", "w", "q_bits"))
        d, w, bits = numbers
        candidate = from_published(family, PublishedConfig(d, ratios, w, bits))
        genome[: len(plain.choices)] = candidate.genes
        for name, asymmetric in zip(living_layers(d), rows["q_weights_asym"][i], strict=True):
            if name is not None:
                genome[space.columns[f"{name}.rounding"]] = asymmetric
    known = (macs, params, integer_macs, weight_bytes, tensor_bytes, conversions, converted)
    table = compile_table(plain, family.terms(), known)
    strides = np.pad(table.positions.strides, ((0, len(roundings)), (0, 0)))  # a rounding costs nothing
    costs = replace(table, positions=replace(table.positions, strides=strides))
    return PublishedRows(f"OFA-R50 int8/fp32, {target}", space, space.canonical(genomes), rows[target], costs)


def bert(data: Path) -> PublishedRows:
    """Accuracy in percent on SST-2 of BERT-base with fewer layers, heads and feed-forward channels."""
    rows = np.load(data / "subnets" / "bert_sst2.npz")
    family = bert_base(in_channels=257, classes=2, formats=("fp32",))
    space = family.space()
    genomes = from_bert(space, BertRows(rows["num_layers"], rows["heads"], rows["ffn"]))
    costs = compile_table(space, family.terms(), (macs, params))
    return PublishedRows("BERT SST-2 accuracy, %", space, space.canonical(genomes), 100 * rows["acc"], costs)


def integer_macs(layer: Layer) -> float:
    """Multiply-adds on integers."""
    return macs(layer) * (layer.activation_format != "fp32")


def weight_bytes(layer: Layer) -> float:
    """Of weights, packed."""
    return params(layer) * weight_bits(layer.weight_format) / 8


def tensor_bytes(layer: Layer) -> float:
    """Of the tensors that a layer reads and writes."""
    read = np.prod(layer.in_shape) * tensor_bits(layer.in_format)
    return float(read + np.prod(layer.out_shape) * tensor_bits(layer.out_format)) / 8


def conversions(layer: Layer) -> float:
    """1 where a tensor changes its format."""
    return float(layer.kind in ("quantize", "dequantize"))


def converted(layer: Layer) -> float:
    """Elements that change their format."""
    return conversions(layer) * float(np.prod(layer.in_shape))
