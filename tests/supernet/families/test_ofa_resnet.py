"""Once-for-all's ResNet50: an independent way to compute it, published configurations, counts and files."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.counts import macs, params
from hw_profiles.graph.layer import map_layer
from hw_profiles.graph.memory import peak_bytes
from hw_profiles.runtimes.ort.runtime import INTEGER_OPS, expected_kernels, open_exactly, optimised_ops
from hw_profiles.runtimes.plugin import open_device
from nas.emit.to_onnx import emit
from predictors.table import compile_peak, compile_table
from supernet.families.ofa_resnet import OfaResNetFamily, Stage, Stem, expanded_channels, ofa_resnet50
from supernet.families.ofa_resnet_names import resnet50
from supernet.families.ofa_resnet_published import (
    PublishedConfig,
    from_published,
    living_layers,
    to_published,
)
from supernet.graph import executor as program
from supernet.graph.executor import Unquantized, layered
from supernet.graph.simulate import simulate
from supernet.graph.subnet import recalibrate
from supernet.ptq.calibrate import observe, quantize
from supernet.space.space import Candidate
from supernet.zoo.ofa_checkpoint import Fit, Imported, import_original, plain_name
from tests.published_data import DataFile

CLASSES = 10
FAMILY = ofa_resnet50(in_channels=3, classes=CLASSES)
PARITY = 1e-5  # relative to the largest logit: float32 sums in another order
PIXELS = 48  # sides that halve to odd ones: 48, 24, 12, 6, 3, 2

BLOCKS = (4, 4, 6, 4)  # of each stage at its deepest
WIDTHS = ((168, 208, 256), (336, 408, 512), (664, 816, 1024), (1328, 1640, 2048))
STEM_INNER, STEM_WIDTHS = (24, 24, 32), (40, 48, 64)
NARROW = ("int4", "int4/int6", "fp32")


def tiny(formats: tuple[str, ...], resolutions: tuple[int, ...] = (34, 49)) -> OfaResNetFamily:
    """The same kind of network, small enough for hundreds."""
    stages = (Stage((16, 24), 1, (1, 2)), Stage((24, 32), 2, (2,)), Stage((40,), 2, (1, 3)))
    return OfaResNetFamily("tiny", resolutions, Stem((8, 16), (16,)), stages, (25, 50), 3, 5, formats)


def uniform(shape: tuple[int, ...], generator: torch.Generator, low: float, high: float) -> Tensor:
    return torch.empty(shape).uniform_(low, high, generator=generator)


# -- an independent implementation, by the names of the published file ---------------------------------


def original_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Weights of every convolution of the published supernet, by name without the kind of tensor."""
    yield "input_stem.0", (32, 3, 3, 3)
    yield "input_stem.1.conv", (32, 32, 3, 3)
    yield "input_stem.2", (64, 32, 3, 3)
    position, before = 0, 64
    for count, (*_, width) in zip(BLOCKS, WIDTHS, strict=True):
        middle = expanded_channels(width, 35)
        for b in range(count):
            name = f"blocks.{position}"
            yield f"{name}.conv1", (middle, before, 1, 1)
            yield f"{name}.conv2", (middle, middle, 3, 3)
            yield f"{name}.conv3", (width, middle, 1, 1)
            if b == 0:
                yield f"{name}.downsample", (width, before, 1, 1)
            position, before = position + 1, width


@pytest.fixture(scope="module")
def published() -> Mapping[str, Tensor]:
    """A state dict as the published file has it, in one spelling."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, shape in original_shapes():
        state[f"{name}.conv.weight"] = (
            torch.randn(shape, generator=generator) * (2 / shape[1]) ** 0.5 / shape[2]
        )
        for kind, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.5, 0.5),
            ("running_mean", -0.5, 0.5),
            ("running_var", 0.5, 2.0),
        ):
            state[f"{name}.bn.{kind}"] = uniform(shape[:1], generator, low, high)
    state["classifier.linear.weight"] = torch.randn(CLASSES, 2048, generator=generator)
    state["classifier.linear.bias"] = torch.randn(CLASSES, generator=generator)
    return state


@pytest.fixture(scope="module")
def net(published: Mapping[str, Tensor]) -> nn.Module:
    """Ours with the same numbers."""
    net = FAMILY.supernet(rng=np.random.default_rng(0)).eval()
    tensors = {str(resnet50(name)): tensor for name, tensor in published.items()}
    names = {name for name in net.state_dict() if not name.endswith("num_batches_tracked")}
    assert set(tensors) == names
    net.load_state_dict(tensors, strict=False)
    return net


def conv(state: Mapping[str, Tensor], name: str, x: Tensor, out: int, stride: int = 1) -> Tensor:
    """A convolution and its batch norm, of the first channels only."""
    weight = state[f"{name}.conv.weight"][:out, : x.shape[1]]
    y = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    gamma, beta, mean, var = (
        state[f"{name}.bn.{kind}"][:out, None, None]
        for kind in ("weight", "bias", "running_mean", "running_var")
    )
    return (y - mean) / (var + 1e-5).sqrt() * gamma + beta


def averaged(x: Tensor) -> Tensor:
    """2x2 means; the last row and column of an odd map are averaged with nothing."""
    odd = x.shape[-1] % 2
    padded, inside = F.pad(x, (0, odd, 0, odd)), F.pad(torch.ones_like(x), (0, odd, 0, odd))
    pairs = [t.unfold(2, 2, 2).unfold(3, 2, 2).sum((-1, -2)) for t in (padded, inside)]
    return pairs[0] / pairs[1]


def reference(state: Mapping[str, Tensor], config: PublishedConfig, x: Tensor) -> Tensor:
    """What the published subnet computes: ResNet50-D with channels cut to a prefix."""
    inner, width, *stage_widths = config.w
    x = conv(state, "input_stem.0", x, STEM_INNER[inner], 2).relu()
    if config.d[0] == 2:
        x = x + conv(state, "input_stem.1.conv", x, STEM_INNER[inner]).relu()
    x = conv(state, "input_stem.2", x, STEM_WIDTHS[width]).relu()
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 2)
    position = 0
    for s, (count, w) in enumerate(zip(BLOCKS, stage_widths, strict=True)):
        width = WIDTHS[s][w]
        for b in range(count - 2 + config.d[1 + s]):
            name, stride = f"blocks.{position + b}", 2 if s and not b else 1
            middle = expanded_channels(width, round(100 * config.e[position + b]))
            shortcut = x
            if b == 0:
                shortcut = conv(state, f"{name}.downsample", averaged(x) if s else x, width)
            y = conv(state, f"{name}.conv1", x, middle).relu()
            y = conv(state, f"{name}.conv2", y, middle, stride).relu()
            x = (conv(state, f"{name}.conv3", y, width) + shortcut).relu()
        position += count
    pooled = x.mean((2, 3))
    weight = state["classifier.linear.weight"][:, : pooled.shape[1]]
    return pooled @ weight.T + state["classifier.linear.bias"]


def drawn(seed: int) -> PublishedConfig:
    rng = np.random.default_rng(seed)
    return PublishedConfig(
        (int(rng.choice([0, 2])), *rng.integers(0, 3, 4).tolist()),
        tuple(rng.choice([0.2, 0.25, 0.35], 18).tolist()),
        tuple(rng.integers(0, 3, 6).tolist()),
        tuple(rng.choice([8, 32], 61).tolist()),
    )


def test_subnets_compute_what_the_published_ones_do(net: nn.Module, published: Mapping[str, Tensor]) -> None:
    smallest = PublishedConfig((0,) * 5, (0.2,) * 18, (0,) * 6, (32,) * 61)
    largest = PublishedConfig((2,) * 5, (0.35,) * 18, (2,) * 6, (32,) * 61)
    outputs = set()
    for i, config in enumerate((smallest, largest, *map(drawn, range(3)))):
        x = torch.randn(1, 3, PIXELS, PIXELS, generator=torch.Generator().manual_seed(i))
        with torch.no_grad():
            found = net(x, FAMILY.arch(from_published(FAMILY, config)))
            expected = reference(published, config, x)
        torch.testing.assert_close(found, expected, rtol=0, atol=PARITY * float(expected.abs().max()))
        outputs.add(tuple(expected.flatten().tolist()))
    assert len(outputs) == 5


@pytest.mark.parametrize("wrapped", [True, False])
def test_both_spellings_of_the_published_file_are_ours(
    wrapped: bool, published: Mapping[str, Tensor]
) -> None:
    """`conv.weight` is `conv.conv.weight` in newer code, `bn.` is `bn.bn.`, `linear.` is `linear.linear.`."""
    ours = set()
    for name in published:
        spelled = name
        for short, long in (
            ("conv.weight", "conv.conv.weight"),
            ("bn.", "bn.bn."),
            ("linear.", "linear.linear."),
        ):
            spelled = spelled.replace(short, long) if wrapped else spelled
        ours.add(resnet50(plain_name(spelled)))
    assert ours == {resnet50(name) for name in published}
    assert len(ours) == len(published)


@pytest.mark.parametrize(
    "name",
    [
        "input_stem.3.conv.weight",
        "blocks.18.conv1.conv.weight",
        "blocks.0.conv4.conv.weight",
        "first_conv.conv.weight",
        "classifier.weight",
    ],
)
def test_foreign_names_are_nobodys(name: str) -> None:
    assert resnet50(name) is None


@pytest.mark.slow
def test_a_file_of_the_published_form_is_imported(
    published: Mapping[str, Tensor], net: nn.Module, tmp_path: Path
) -> None:
    torch.save({"state_dict": dict(published)}, tmp_path / "ofa_resnet50")
    found = import_original(tmp_path / "ofa_resnet50")
    assert isinstance(found, Imported)
    assert (found.family.name, found.fit.classes) == ("ofa-resnet50", CLASSES)
    ours = net.state_dict()
    for name in found.fit.fitted:
        assert torch.equal(found.model[name], ours[name])
    rest = {name: tensor for name, tensor in published.items() if name != "input_stem.1.conv.bn.bias"}
    torch.save(rest, tmp_path / "less")
    less = import_original(tmp_path / "less", space="ofa-resnet50")
    assert isinstance(less, Fit)
    assert less.missing == ("stem.1.norm.bias",)


# -- published configurations ------------------------------------------------------------------------


def row(data: Mapping[str, np.ndarray], i: int) -> PublishedConfig:
    e = tuple(round(float(ratio), 2) for ratio in data["e"][i])
    d, w, bits = (tuple(data[name][i].tolist()) for name in ("d", "w", "q_bits"))
    return PublishedConfig(d, e, w, bits)


def test_every_row_of_the_joint_data_is_a_candidate_and_back(data_file: DataFile) -> None:
    with np.load(data_file("subnets/ofa_r50_joint_quant.npz")) as file:
        data = dict(file)
    assert len(data["top1"]) == 298
    rows_of: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for i, active in enumerate(data["layer_active"].astype(bool).tolist()):
        config = row(data, i)
        assert [name is not None for name in living_layers(config.d)] == active
        candidate = from_published(FAMILY, config)
        policy = FAMILY.policy(candidate)
        assert len(policy) == sum(active) + 1  # the classifier
        back = to_published(FAMILY, candidate)
        assert back.d == (2 * (config.d[0] == 2), *config.d[1:])
        assert back.w == (config.w[0] if config.w[0] == 2 else 0, *config.w[1:])
        assert back.q_bits == tuple(bits * alive for bits, alive in zip(config.q_bits, active, strict=True))
        depths = [count - 2 + extra for count, extra in zip(BLOCKS, config.d[1:], strict=True)]
        living = [b < depth for count, depth in zip(BLOCKS, depths, strict=True) for b in range(count)]
        assert back.e == tuple(ratio * alive for ratio, alive in zip(config.e, living, strict=True))
        assert from_published(FAMILY, back) == candidate
        # a weight can be rounded in two ways there, which is none of our choices
        ways = np.where(data["layer_active"][i] & (data["q_bits"][i] == 8), data["q_weights_asym"][i], 0)
        rows_of.setdefault((candidate.id, tuple(ways.tolist())), []).append(i)
    # of those that differ only in numbers for layers that are not there, each has the accuracy of the others
    repeated = [rows for rows in rows_of.values() if len(rows) > 1]
    assert len(repeated) == 10
    for rows in repeated:
        assert len(set(data["top1"][rows].tolist())) == 1


@given(seed=st.integers(0, 10**6))
def test_candidates_are_published_ones_and_back(seed: int) -> None:
    space = FAMILY.space()
    (genome,) = space.sample(1, rng=np.random.default_rng(seed))
    genome[space.columns["classifier.format"]] = 0
    candidate = space.candidate(genome)
    config = to_published(FAMILY, candidate)
    assert from_published(FAMILY, config, resolution=FAMILY.resolution(candidate)) == candidate
    layers = dict(zip(FAMILY.workload(candidate).names, FAMILY.workload(candidate).layers, strict=True))
    for name, bits in zip(living_layers(config.d), config.q_bits, strict=True):
        assert (bits == 0) == (name is None)
        if name is not None:
            assert layers[name].weight_format == {8: "int8", 32: "fp32"}[bits]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": (3, 0, 0, 0, 0)}, r"d of a published subnet is 5 numbers, each of \(0, 1, 2\); got \[3, 0"),
        ({"d": (0, 0)}, "d of a published subnet is 5 numbers"),
        ({"w": (0, 0, 0, 0, 0, 4)}, r"w of a published subnet is 6 numbers, each of \(0, 1, 2\)"),
        ({"e": (0.3,) * 18}, "s0.b0.expand: 30 is none of"),
        ({"e": (0.2,) * 17}, "e of a published subnet is 18 numbers"),
        ({"q_bits": (4,) * 61}, "stem.in: 4 bits; published subnets have 8 or 32"),
        ({"q_bits": (8,) * 62}, "q_bits of a published subnet is 61 numbers"),
    ],
)
def test_what_is_no_published_configuration(change: dict[str, tuple[float, ...]], message: str) -> None:
    valid = {"d": (0,) * 5, "e": (0.2,) * 18, "w": (0,) * 6, "q_bits": (8,) * 61}
    with pytest.raises(TrilobitError, match=message):
        from_published(FAMILY, PublishedConfig(**{**valid, **change}))  # type: ignore[arg-type]


def test_formats_that_were_not_published() -> None:
    family = ofa_resnet50(in_channels=3, classes=CLASSES, formats=("int4", "fp32"))
    with pytest.raises(TrilobitError, match="in int8 and fp32, not in int4"):
        to_published(family, family.extremes()["largest/int4"])


# -- the space and its counts --------------------------------------------------------------------------


def test_the_space_is_the_published_one() -> None:
    """Depths and widths of five and six places, 18 ratios, and formats of 61 convolutions and a classifier;
    without the one width of the stem that is no other network.
    """
    space = FAMILY.space()
    formats = [choice.name for choice in space.choices if choice.kind == "precision"]
    assert len(formats) == 61 + 1
    architectures = ofa_resnet50(in_channels=3, classes=CLASSES, formats=("fp32",)).space()
    # per stage three widths and depths; three more ratios for each of two more blocks
    stages = [3 * 3**base * (1 + 3 + 9) for base in (2, 2, 4, 2)]
    assert architectures.size == 7 * 2 * 2 * 3 * int(np.prod(stages))
    assert tuple(stage.widths for stage in FAMILY.stages) == WIDTHS


def test_no_two_ratios_give_the_same_network() -> None:
    for width in itertools.chain(*WIDTHS):
        assert len({expanded_channels(width, percent) for percent in FAMILY.percents}) == 3
        for percent in FAMILY.percents:  # percentages are the published ratios, whose products are rounded
            assert abs(expanded_channels(width, percent) - width * percent / 100) <= 4.5


def test_counts_are_those_of_the_modules(net: nn.Module) -> None:
    """One multiply-add per weight and output pixel, seen by hooks; one bias per channel after folding."""
    for seed, resolution in enumerate((144, 208)):
        candidate = from_published(FAMILY, drawn(seed), resolution=resolution)
        subnet, seen = FAMILY.extract(net, candidate).eval().to("meta"), []

        def count(module: nn.Module, _: tuple[Tensor, ...], y: Tensor, seen: list[int] = seen) -> None:
            assert isinstance(module, nn.Conv2d | nn.Linear)
            pixels = y[0, 0].numel() if y.ndim == 4 else 1
            seen.append(module.weight.numel() * pixels)

        weighted = [m for m in subnet.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for module in weighted:
            module.register_forward_hook(count)
        size = FAMILY.resolution(candidate)
        subnet(torch.empty(1, 3, size, size, device="meta"))
        layers = FAMILY.plain_workload(FAMILY.arch(candidate)).layers
        assert sum(map(macs, layers)) == sum(seen)
        assert sum(map(params, layers)) == sum(m.weight.numel() + len(m.weight) for m in weighted)


# kinds of cost that no two kinds of layer share
COSTS = (macs, params, *(lambda layer, i=i: float(sum(layer.key().encode()) % 97 == i) for i in range(8)))


@pytest.mark.parametrize("formats", [("fp32", "int8"), NARROW], ids="+".join)
def test_terms_are_those_of_the_workload(formats: tuple[str, ...]) -> None:
    family = tiny(formats, (34,))
    space = family.space()
    genomes = space.sample(100, rng=np.random.default_rng(0))
    works = [family.workload(space.candidate(genome)) for genome in genomes]
    costs = compile_table(space, family.terms(), COSTS)(genomes)
    summed = [[sum(cost(layer) for layer in work.layers) for cost in COSTS] for work in works]
    np.testing.assert_array_equal(costs, summed)
    peaks = compile_peak(space, family.peak_terms())(genomes)
    np.testing.assert_array_equal(peaks, [peak_bytes(work) for work in works])


def test_programs_run_on_the_supernet_itself() -> None:
    """What quantized training steps through is the elastic network, sums and pooling included."""
    family = tiny(("fp32",))
    net, space = family.supernet(rng=np.random.default_rng(0)).train(), family.space()
    for genome in space.sample(4, rng=np.random.default_rng(1)):
        candidate = space.candidate(genome)
        x, arch = torch.randn(2, 3, *[family.resolution(candidate)] * 2), family.arch(candidate)
        with torch.no_grad():
            expected = net(x, arch)
            found = program.forward(layered(net), Unquantized(), family.plain_workload(arch), x)
        torch.testing.assert_close(found, expected, rtol=0, atol=PARITY * float(expected.abs().max()))


# -- integers, and what engines say ----------------------------------------------------------------------


def quantized(family: OfaResNetFamily, candidate: Candidate) -> tuple[Tensor, np.ndarray, bytes]:
    """The simulated logits, those of the file, and the file."""
    size = family.resolution(candidate)
    net = family.supernet(rng=np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, generator=generator)
    x = torch.randn(16, 3, size, size, generator=generator)
    subnet = family.extract(net, candidate)
    recalibrate(subnet, [x])
    network = quantize(subnet, family.workload(candidate), observe(subnet, x))
    model = emit(network, batch=len(x))
    (logits,) = open_exactly(model).run(None, {"image": x.numpy()})
    return simulate(network, x), logits, model


@pytest.mark.parametrize("formats", [("int8",), ("int4",), ("int6/int6",)], ids="+".join)
@pytest.mark.parametrize("corner", ["smallest", "largest"])
def test_files_compute_what_the_simulation_computes(corner: str, formats: tuple[str, ...]) -> None:
    """Pooling included, on maps of odd sides."""
    family = tiny(formats)
    candidate = family.extremes()[f"{corner}/{formats[0]}"]
    simulated, found, model = quantized(family, candidate)
    np.testing.assert_allclose(found, simulated.numpy(), rtol=0, atol=1e-5 * np.abs(found).max())
    if formats == ("int8",):
        work, ops = family.workload(candidate), optimised_ops(model)
        wanted = expected_kernels(work)
        assert {op: ops[op] for op in INTEGER_OPS} == {op: wanted[op] for op in INTEGER_OPS}
        assert wanted["QLinearAveragePool"] == 2
        assert ops["NhwcMaxPool"] == 1
        assert (ops["QuantizeLinear"], ops["DequantizeLinear"]) == (1, 0)  # the image's


@pytest.mark.parametrize("seed", range(4))
def test_mixed_files_compute_what_the_simulation_computes(seed: int) -> None:
    """Equal codes for nearly all: an fp32 convolution may differ in its last bit, which tips a code."""
    family = tiny(("fp32", "int8"))
    (genome,) = family.space().sample(1, rng=np.random.default_rng(seed))
    simulated, found, _ = quantized(family, family.space().candidate(genome))
    difference = np.abs(found - simulated.numpy()).max(axis=1) / np.abs(found).max()
    assert np.median(difference) <= 1e-5
    assert difference.max() <= 0.05


@pytest.mark.parametrize("op", ["maxpool", "avgpool"])
@pytest.mark.parametrize("fmt", ["fp32", "int8"])
def test_engines_measure_windows(op: str, fmt: str) -> None:
    layer = map_layer(op, (16, 9, 9), 16, 3 if op == "maxpool" else 2, 2, activation_format=fmt)
    for name in ("ort", "tvm"):
        device = open_device(name)
        assert device.supports(layer), name
        assert any(layer in work.layers for _, work in device.probe(layer).workloads), name
