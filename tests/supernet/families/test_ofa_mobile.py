"""Once-for-all's mobile spaces: what genes mean, published counts, and an independent way to compute them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.blocks import block_convolutions
from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import Layer, map_layer
from hw_profiles.graph.lowering import lower
from hw_profiles.profiles.published_tables import read_table
from predictors.table import compile_table
from supernet.families.family import Architecture, load_family
from supernet.families.ofa_mobile import MobileFamily, MobileLayers, MobileStage, expanded_channels
from supernet.space.space import SearchSpace
from tests.published_data import DataFile

NAMES = ("ofa-mbv3", "ofa-mbv3-w1.2", "ofa-proxyless")
EXACT = 1e-5  # relative: float32 sums in another order

STAGES = (MobileStage(16, 2, "relu", depths=(1, 2)), MobileStage(24, 1, "hswish", squeeze=True))
TINY = MobileLayers(3, 8, 8, STAGES, 32, 40, 5, "hswish", "relu")
TINY_6 = MobileLayers(3, 16, 8, (MobileStage(8, 1, "relu6"),), 32, 0, 5, "relu6", "relu6")


def family(layers: MobileLayers, eps: float = 1e-5) -> MobileFamily:
    return MobileFamily("tiny", layers, eps, resolutions=(12, 17))


def randomised(net: nn.Module) -> nn.Module:
    """In evaluation mode, no two numbers alike."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        low, high = (0.5, 1.5) if name.endswith(("norm.weight", "running_var")) else (-0.5, 0.5)
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, low, high, generator=generator)
    return net.eval()


# -- written from the papers, with plain functions only ------------------


CURVES = {
    "relu": F.relu,
    "relu6": lambda x: x.clamp(0, 6),
    "hswish": lambda x: x * ((x + 3).clamp(0, 6) / 6),
}


@dataclass(frozen=True)
class Reference:
    """What a network computes by its state dict: MobileNetV3's table 1 and equations (Howard et al. 2019),
    once-for-all's weight sharing (Cai et al. 2020, section 3.2).
    """

    state: Mapping[str, Tensor]
    layers: MobileLayers
    eps: float

    def __call__(self, x: Tensor, arch: Architecture) -> Tensor:
        layers, outer = self.layers, CURVES[self.layers.activation]
        x = outer(self.normed("stem", F.conv2d(x, self.state["stem.weight"], stride=2, padding=1)))
        first = MobileStage(layers.first_width, 1, layers.first_activation)
        x = self.block("first", x, 3, layers.stem_width, first, 1)
        for s, (stage, blocks) in enumerate(zip(layers.stages, arch.stages, strict=True)):
            for b, sizes in enumerate(blocks):
                expanded = expanded_channels(x.shape[1], sizes["expand"])
                stride = stage.stride if b == 0 else 1
                x = self.block(f"stages.{s}.{b}", x, sizes["kernel"], expanded, stage, stride)
        x = outer(self.normed("head", self.pointwise("head", x, layers.head_width))).flatten(2).mean(2)
        if layers.mix_width:
            x = outer(x @ self.state["mix.weight"][:, :, 0, 0].T)
        return x @ self.state["classifier.weight"].T + self.state["classifier.bias"]

    def normed(self, name: str, x: Tensor) -> Tensor:
        gamma, beta, mean, var = (
            self.state[f"{name}.norm.{part}"][: x.shape[1], None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / torch.sqrt(var + self.eps) * gamma + beta

    def pointwise(self, name: str, x: Tensor, out: int) -> Tensor:
        return torch.einsum("oi,nihw->nohw", self.state[f"{name}.weight"][:out, : x.shape[1], 0, 0], x)

    def kernel(self, name: str, kernel: int, channels: int) -> Tensor:
        weight = self.state[f"{name}.weight"][:channels, 0]
        size = weight.shape[-1]
        while size > kernel:
            centre = weight[:, 1 : size - 1, 1 : size - 1].reshape(channels, -1)
            size -= 2
            weight = (centre @ self.state[f"{name}.transforms.{size}"].T).reshape(channels, size, size)
        return weight[:, None]

    def excited(self, name: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        quarter = -(-channels // 4 // 8) * 8  # enough for these widths: all quarters are rounded up
        reduced = F.linear(
            x.flatten(2).mean(2), self.state[f"{name}.reduce.weight"][:quarter, :channels, 0, 0]
        )
        hidden = F.relu(reduced + self.state[f"{name}.reduce.bias"][:quarter])
        gate = F.linear(hidden, self.state[f"{name}.excite.weight"][:channels, :quarter, 0, 0])
        gate = (gate + self.state[f"{name}.excite.bias"][:channels] + 3).clamp(0, 6) / 6
        return x * gate[:, :, None, None]

    def block(
        self, name: str, x: Tensor, kernel: int, expanded: int, stage: MobileStage, stride: int
    ) -> Tensor:
        act, y = CURVES[stage.activation], x
        if f"{name}.expand.weight" in self.state:
            y = act(self.normed(f"{name}.expand", self.pointwise(f"{name}.expand", y, expanded)))
        filters = self.kernel(f"{name}.depthwise", kernel, expanded)
        y = F.conv2d(y, filters, stride=stride, padding=kernel // 2, groups=expanded)
        y = act(self.normed(f"{name}.depthwise", y))
        y = self.excited(f"{name}.squeeze", y) if stage.squeeze else y
        y = self.normed(f"{name}.project", self.pointwise(f"{name}.project", y, stage.width))
        return x + y if stride == 1 and x.shape[1] == stage.width else y


@pytest.mark.parametrize(("layers", "eps"), [(TINY, 1e-5), (TINY_6, 0.3)], ids=["v3", "relu6"])
def test_networks_compute_what_the_papers_say(layers: MobileLayers, eps: float) -> None:
    tiny = family(layers, eps)
    net, space = randomised(tiny.supernet(rng=np.random.default_rng(0))), tiny.space()
    for genome in space.sample(12, rng=np.random.default_rng(0)):
        candidate = space.candidate(genome)
        size = tiny.resolution(candidate)
        x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            found = net(x, tiny.arch(candidate))
            expected = Reference(net.state_dict(), layers, eps)(x, tiny.arch(candidate))
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT * float(expected.abs().max()))


def test_kernels_are_what_the_matrices_make_of_them() -> None:
    tiny = family(TINY)
    net = randomised(tiny.supernet(rng=np.random.default_rng(0)))
    depthwise = net.layer("s0.b0.depthwise")
    matrices = depthwise.transforms
    centre = depthwise.weight[:8, :, 1:-1, 1:-1].flatten(1) @ matrices["5"].T
    five = depthwise.sliced_weight(8, 8, 5)
    torch.testing.assert_close(five.flatten(1), centre)
    torch.testing.assert_close(
        depthwise.sliced_weight(8, 8, 3).flatten(1), five[:, :, 1:-1, 1:-1].flatten(1) @ matrices["3"].T
    )
    assert torch.equal(depthwise.sliced_weight(8, 8, 7), depthwise.weight[:8])


def test_new_networks_begin_with_plain_centre_crops() -> None:
    net = family(TINY).supernet(rng=np.random.default_rng(0))
    depthwise = net.layer("s0.b0.depthwise")
    for kernel in (3, 5, 7):
        edge = (7 - kernel) // 2
        crop = depthwise.weight[:, :, edge : 7 - edge, edge : 7 - edge]
        assert torch.equal(depthwise.sliced_weight(64, len(depthwise.weight), kernel), crop)


def trained_parameters(layer: map_layer) -> int:
    """Numbers that training sets in one unit, as publications of these networks count them: weights, two for
    each channel of a batch norm, biases only of squeeze-and-excitation and of the classifier.
    """
    if layer.kind == "linear":
        return layer.out_channels * (layer.in_shape[0] + 1)
    if layer.kind == "mbconv":
        return sum(
            _weights(part) + part.out_channels * (1 if name in ("reduce", "excite") else 2)
            for name, part in block_convolutions(layer).items()
        )
    if layer.kind not in ("stem", "conv"):
        return 0
    pooled = layer.in_shape[1:] == (1, 1)  # the mix, a convolution without batch norm and bias
    return _weights(layer) + (0 if pooled else 2 * layer.out_channels)


def _weights(layer: map_layer) -> int:
    """Of a convolution: its multiply-adds at one position."""
    _, height, width = layer.out_shape
    return macs(layer) // (height * width)


# -- the published spaces ------------------------------------------------


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("ofa-mbv3", (16, 16, 24, 40, 80, 112, 160, 960, 1280)),
        ("ofa-mbv3-w1.2", (24, 24, 32, 48, 96, 136, 192, 1152, 1536)),
        ("ofa-proxyless", (40, 24, 32, 56, 104, 128, 248, 416, 1664, 0)),
    ],
)
def test_widths_are_the_published_ones(name: str, widths: tuple[int, ...]) -> None:
    layers = load_family(name, in_channels=3, classes=1000).layers
    inner = (stage.width for stage in layers.stages)
    assert (layers.stem_width, layers.first_width, *inner, layers.head_width, layers.mix_width) == widths


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_is_a_published_one(name: str) -> None:
    options: dict[str, set[tuple[int | str, ...]]] = {}
    for choice in load_family(name, in_channels=3, classes=1000, formats=("fp32",)).space().choices:
        options.setdefault(choice.name.rpartition(".")[2], set()).add(choice.options)
    assert options.pop("format") == {("fp32",)}
    last = {(1,)} if name == "ofa-proxyless" else set()
    assert options == {
        "resolution": {tuple(range(128, 225, 4))},
        "depth": {(2, 3, 4)} | last,
        "kernel": {(3, 5, 7)},
        "expand": {(3, 4, 6)},
    }


@pytest.mark.parametrize("name", ["ofa-mbv3", "ofa-mbv3-w1.2"])
def test_there_are_as_many_networks_as_published(name: str) -> None:
    """((3 x 3)^2 + (3 x 3)^3 + (3 x 3)^4)^5, about 2 x 10^19, for each of 25 resolutions (section 3.2)."""
    space = load_family(name, in_channels=3, classes=1000, formats=("fp32",)).space()
    assert space.size == 25 * (9**2 + 9**3 + 9**4) ** 5


def published_genomes(space: SearchSpace, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, g) of depths `d` (n, 5), kernels `ks` and expansions `e` (n, 20) at 224 px in fp32."""
    genomes = np.zeros((len(rows["d"]), len(space.choices)), np.int16)

    def choose(name: str, values: np.ndarray) -> None:
        options = np.array(space.choices[space.columns[name]].options)
        chosen = values[:, None] == options
        genomes[:, space.columns[name]] = np.where(chosen.any(axis=1), chosen.argmax(axis=1), 0)

    choose("resolution", np.full(len(genomes), 224))
    for i in range(20):
        s, b = divmod(i, 4)
        choose(f"s{s}.depth", rows["d"][:, s])
        choose(f"s{s}.b{b}.kernel", rows["ks"][:, i])
        choose(f"s{s}.b{b}.expand", rows["e"][:, i])
    return genomes


def test_multiply_adds_and_parameters_of_published_networks_are_exact(data_file: DataFile) -> None:
    mobile = load_family("ofa-mbv3", in_channels=3, classes=1000)
    with np.load(data_file("subnets/ofa_mbv3_w10.npz")) as file:
        rows = {name: file[name] for name in ("d", "ks", "e", "macs", "params")}
    genomes = published_genomes(mobile.space(), rows)
    assert np.array_equal(genomes, mobile.space().canonical(genomes))
    found = compile_table(mobile.space(), mobile.terms(), (macs, trained_parameters))(genomes)
    assert len(found) == 1200
    np.testing.assert_array_equal(found, np.column_stack([rows["macs"], rows["params"]]))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_that_training_sets(name: str) -> None:
    """All of the largest network's but the kernel matrices."""
    mobile = load_family(name, in_channels=3, classes=10)
    parameters = mobile.supernet(rng=np.random.default_rng(0)).named_parameters()
    trained = sum(tensor.numel() for name, tensor in parameters if "transforms" not in name)
    work = mobile.workload(mobile.extremes()["largest/fp32"])
    assert sum(map(trained_parameters, work.layers)) == trained


def test_the_published_table_prices_every_unit_at_its_resolutions(data_file: DataFile) -> None:
    table = read_table(data_file("ofa/note10_latency_lut.json"))
    mobile = load_family("ofa-mbv3-w1.2", in_channels=3, classes=1000, formats=("fp32",))
    space, seen = mobile.space(), set[Layer]()
    column = space.columns["resolution"]
    for genome in space.sample(200, rng=np.random.default_rng(0)):
        resolution = (160, 176, 192, 208, 224)[int(genome[column]) % 5]
        genome[column] = space.choices[column].options.index(resolution)
        seen |= {*mobile.workload(space.candidate(genome)).layers}
    coverage = table.coverage(seen)
    assert not coverage.missing
    assert not coverage.interpolated
    assert len(coverage.covered) > 300


# -- units ---------------------------------------------------------------


def test_units_in_mixed_formats_are_joined_by_conversions() -> None:
    tiny = family(TINY)
    decisions = tiny.space().decode(tiny.extremes()["smallest/fp32"])
    mixed = tiny.space().encode({**decisions, "s0.b0.format": "int8", "mix.format": "int8"})
    work = tiny.workload(mixed)
    assert work.names == (
        *("stem", "first", "first.quantize", "s0.b0", "s0.b0.dequantize", "s1.b0", "s1.b1", "head"),
        *("pool", "pool.quantize", "mix", "mix.dequantize", "classifier"),
    )
    assert {name: str(precision) for name, precision in tiny.policy(mixed).items()} == {
        "stem": "fp32",
        "first": "fp32",
        "s0.b0": "int8",
        "s1.b0": "fp32",
        "s1.b1": "fp32",
        "head": "fp32",
        "mix": "int8",
        "classifier": "fp32",
    }


def test_layers_of_an_extracted_network_are_those_of_its_lowered_workload() -> None:
    tiny = family(TINY)
    net = tiny.supernet(rng=np.random.default_rng(0))
    for corner in ("smallest/fp32", "largest/fp32"):
        candidate = tiny.extremes()[corner]
        subnet = tiny.extract(net, candidate)
        lowered = lower(tiny.plain_workload(tiny.arch(candidate)))
        assert subnet.workload == lowered
        weighted = {name for name, layer in zip(lowered.names, lowered.layers, strict=True) if layer.weighted}
        assert set(subnet.layers) == {name.replace(".", "_") for name in weighted}
        counted = sum(map(trained_parameters, tiny.plain_workload(tiny.arch(candidate)).layers))
        assert sum(tensor.numel() for tensor in subnet.parameters()) == counted


def test_another_familys_network_is_refused() -> None:
    tiny = family(TINY)
    with pytest.raises(TrilobitError, match=r"Linear .* needs a method layer\(name\)"):
        tiny.extract(nn.Linear(1, 1), tiny.extremes()["smallest/fp32"])
