"""The analytical array: hand-computed cycles, what must never get cheaper, and the published rows."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import WorkloadBuilder
from hw_profiles.graph.counts import macs
from hw_profiles.graph.layer import INPUT, Layer, changed, map_layer
from hw_profiles.graph.workload import Workload, single
from hw_profiles.measure.in_context import alone
from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.runtimes.analytical.systolic import (
    Convolution,
    SystolicDevice,
    convolution_cost,
    known_devices,
    layer_cost,
    load_accelerator,
)
from hw_profiles.runtimes.runtime import Job
from tests.published_data import DataFile

ARRAY = load_accelerator("bitfusion")
BITS = st.sampled_from((2, 4, 6, 8))
# a narrower dense convolution leaves columns of the array idle, and may wait longer for its one large tile
# than one of twice the channels for its several small ones
CHANNELS = st.integers(4, 40).map(lambda eights: 8 * eights)
TARGET = 0.95  # rank correlation with the published rows


def refuse() -> bytes:
    raise AssertionError("an analytical backend never asks for ONNX")


def conv(weight_format: str = "int8", activation_format: str = "int8") -> Layer:
    return map_layer("conv", (64, 14, 14), 32, 1, 1, 1, "none", weight_format, activation_format)


@st.composite
def convolutions(draw: st.DrawFn) -> Layer:
    """Convolutions as networks have them: pointwise, dense or depthwise."""
    channels, size = draw(CHANNELS), draw(st.sampled_from((7, 14, 28)))
    kernel, stride = draw(st.sampled_from((1, 3, 5))), draw(st.sampled_from((1, 2)))
    depthwise = draw(st.booleans())
    return map_layer(
        "conv",
        (channels, size, size),
        channels if depthwise else draw(CHANNELS),
        kernel,
        stride,
        channels if depthwise else 1,
        weight_format=f"int{draw(BITS)}",
        activation_format=f"int{draw(BITS)}",
    )


def cycles(layer: Layer) -> float:
    cost = layer_cost(ARRAY, layer)
    assert cost is not None
    return cost.cycles


def energy_j(layer: Layer) -> float:
    cost = layer_cost(ARRAY, layer)
    assert cost is not None
    return ARRAY.energy_j(cost.computing, cost.moved_bits)


# -- by hand -------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "products"),
    [(8, 8, 1), (6, 6, 1), (6, 8, 1), (4, 8, 2), (6, 4, 2), (4, 4, 4), (2, 8, 4), (2, 2, 16)],
)
def test_six_bits_take_the_room_of_eight(weight_bits: int, activation_bits: int, products: int) -> None:
    assert ARRAY.fused(weight_bits, activation_bits) == products


def test_a_layer_that_fits_computes_between_its_first_and_last_transfer() -> None:
    """8 channels at 7 x 7, kernel 3, 6 bits: 441 cycles of computing, 104 in and 66 out."""
    cost = convolution_cost(ARRAY, Convolution(8, 8, 7, 7, 3, 1, 6, 6))
    first = np.ceil((9 * 64 * 6 + 81 * 8 * 6 + 49 * 8 * 32) / 192)
    assert cost is not None
    assert (cost.computing, first) == (441, 104)
    assert cost.cycles == 441 + first + np.ceil(49 * 8 * 32 / 192)


def test_a_depthwise_convolution_is_blocks_of_dense_ones() -> None:
    blocks = map_layer("conv", (40, 7, 7), 40, 3, 1, 40, "none", "int8", "int8")
    assert cycles(blocks) == 5 * cycles(changed(blocks, in_shape=(8, 7, 7), out_channels=8, groups=8))


@pytest.mark.parametrize(
    ("layer", "moved_bits"),
    [
        (map_layer("quantize", (3, 8, 8), 3, activation_format="int8"), 192 * (32 + 8)),
        (map_layer("dequantize", (3, 8, 8), 3, activation_format="int4"), 192 * (4 + 32)),
        (map_layer("add", (3, 8, 8), 3, activation_format="int6"), 192 * 3 * 6),
        (map_layer("pool", (3, 8, 8), 3, activation_format="int8"), (192 + 3) * 8),
    ],
)
def test_layers_without_products_cost_their_traffic(layer: Layer, moved_bits: int) -> None:
    cost = layer_cost(ARRAY, layer)
    assert cost is not None
    assert (cost.computing, cost.moved_bits) == (0, moved_bits)
    assert cost.cycles == np.ceil(moved_bits / 192)


@pytest.mark.parametrize(
    "layer",
    [
        map_layer("conv", (8, 4, 4), 8),
        conv(weight_format="int3"),
        conv(activation_format="fp32"),
        map_layer("add", (8, 4, 4), 8),
        map_layer("pool", (8, 4, 4), 8),
        map_layer("mbconv", (8, 4, 4), 8, 3, expanded=16),
        map_layer("conv", (8, 4, 4), 16, 3, 1, 8, "none", "int8", "int8"),
    ],
    ids=Layer.key,
)
def test_refuses_what_the_array_has_no_units_for(layer: Layer) -> None:
    assert not SystolicDevice(accelerator="bitfusion").supports(layer)


def test_runs_a_network_from_image_to_logits() -> None:
    net = WorkloadBuilder((3, 16, 16))
    x = net.add("stem", map_layer("stem", (3, 16, 16), 16, 3, 2, 1, "relu", "int8", "int8"), INPUT)
    x = net.add("pool", map_layer("pool", (16, 8, 8), 16, activation_format="int8"), x)
    linear = map_layer("linear", (16, 1, 1), 10, weight_format="int4", activation_format="int8")
    net.add("head", linear, x)
    work = net.build()
    backend = SystolicDevice(accelerator="bitfusion")
    assert [layer.kind for layer in work.layers] == ["quantize", "stem", "pool", "linear"]
    assert all(map(backend.supports, work.layers))
    jobs = [Job(work, refuse), *(Job(single(layer), refuse) for layer in work.layers)]
    whole, *parts = backend.measure(jobs, MeasurePlan())
    assert whole.samples_s == (pytest.approx(sum(part.median_s for part in parts)),)
    assert whole.energy_j == pytest.approx(sum(part.energy_j or 0.0 for part in parts))


def test_what_it_cannot_run_is_an_error_and_the_others_go_on() -> None:
    works = [single(conv()), single(map_layer("conv", (8, 4, 4), 8)), single(conv())]
    measured = SystolicDevice(accelerator="bitfusion").measure([Job(w, refuse) for w in works], MeasurePlan())
    assert [one.error for one in measured] == [
        None,
        "bitfusion cannot run 'conv 8x4x4>8 k1s1g1 none w=fp32 a=fp32'; it computes in 2, 4, 6, 8 bits",
        None,
    ]


def test_describes_itself() -> None:
    backend = SystolicDevice(accelerator="bitfusion")
    assert backend.describe() == backend.describe()
    assert (backend.describe().name, backend.describe().engine) == ("bitfusion", "analytical")
    assert backend.describe().energy.startswith(
        "modelled, fitted to a random half of apq_bitfusion_b1_lut.npz"
    )
    assert backend.probe(conv()) == alone(conv())


# -- what must hold for every layer --------------------------------------


@given(convolutions())
def test_time_and_energy_are_positive_and_no_faster_than_the_array(layer: Layer) -> None:
    peak = (
        ARRAY.rows
        * ARRAY.columns
        * ARRAY.fused(int(layer.weight_format[3:]), int(layer.activation_format[3:]))
    )
    assert cycles(layer) > macs(layer) / peak > 0
    assert energy_j(layer) > 0


@given(convolutions(), BITS, BITS)
def test_more_bits_are_never_faster(layer: Layer, weight_bits: int, activation_bits: int) -> None:
    more = layer.with_formats(
        f"int{max(weight_bits, int(layer.weight_format[3:]))}",
        f"int{max(activation_bits, int(layer.activation_format[3:]))}",
    )
    assert cycles(more) >= cycles(layer)


@given(convolutions())
def test_twice_the_channels_are_never_cheaper(layer: Layer) -> None:
    channels, *size = layer.in_shape
    wide = changed(
        layer,
        in_shape=(2 * channels, size[0], size[1]),
        out_channels=2 * layer.out_channels,
        groups=2 * channels if layer.depthwise else 1,
    )
    assert cycles(wide) >= cycles(layer)
    if not layer.depthwise:  # there the fastest of several fusions runs, whatever it takes; so in the rows
        assert energy_j(wide) >= energy_j(layer)


# -- devices as files ----------------------------------------------------


def bitfusion_toml() -> str:
    return (resources.files("hw_profiles.devices") / "bitfusion.toml").read_text()


def test_every_shipped_device_loads() -> None:
    assert "bitfusion" in known_devices()
    for name in known_devices():
        assert load_accelerator(name).name == name


def test_a_device_may_be_a_file_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(bitfusion_toml().replace('name = "bitfusion"', 'name = "mine"').replace("192\n", "384\n"))
    backend = SystolicDevice(accelerator=mine)
    assert (backend.describe().name, backend.accelerator.bus_width) == ("mine", 384)


def test_an_unknown_device_is_refused() -> None:
    message = r"^unknown accelerator 'eyeriss'; known: bitfusion, or the path of a \.toml file$"
    with pytest.raises(TrilobitError, match=message):
        SystolicDevice(accelerator="eyeriss")
    with pytest.raises(TrilobitError, match=r"^unknown accelerator 'no/such\.toml'; known: bitfusion"):
        SystolicDevice(accelerator="no/such.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[rows]\nvalue = 16",
            "[rows]\nvalue = 0",
            r"rows = 0; it must be a whole number above 0, in fusion units$",
        ),
        ("[rows]\nvalue = 16", "[rows]\nvalue = 1.5", r"rows = 1\.5; it must be a whole number above 0"),
        ("[rows]\nvalue = 16", "[rows]\nvalue = true", r"rows = True; it must be a whole number above 0"),
        ("value = 500000000", "value = nan", r"clock = nan; it must be a number above 0, in Hz$"),
        ("value = 500000000", "value = inf", r"clock = inf; it must be a number above 0, in Hz$"),
        ('unit = "bit/cycle"', 'unit = "GB/s"', r"bus_width is in 'GB/s'; write it in 'bit/cycle'$"),
        ("[rows]\nvalue", "[rows]\nvalues", r"rows needs exactly value, unit and source$"),
        ("[rows]", "[lines]", r"missing: rows; unknown: lines; see hw_profiles/devices/bitfusion\.toml$"),
        ('name = "bitfusion"', 'name = "a/b"', r"name 'a/b'; it must do as a file name"),
        (
            'source = "the authors\' simulator, bf_e_conf.ini: a"',
            'source = " "',
            r"rows has no source; say where 16",
        ),
        ('name = "bitfusion"', "name = ", r"not TOML \("),
    ],
)
def test_a_malformed_device_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = bitfusion_toml()
    assert old in text
    (tmp_path / "bad.toml").write_text(text.replace(old, new))
    with pytest.raises(TrilobitError, match=message):
        load_accelerator(tmp_path / "bad.toml")


# -- the published rows --------------------------------------------------


def test_ranks_the_published_rows_that_were_not_fitted(data_file: DataFile) -> None:
    with np.load(data_file("ofa/apq_bitfusion_b1_lut.npz"), allow_pickle=False) as file:
        rows = file["rows"]
    held = rows[np.random.default_rng(0).permutation(len(rows)) >= len(rows) // 2][::9]
    layers = [
        map_layer("conv", (c, size, size), out, k, stride, groups, "none", f"int{w}", f"int{a}")
        for c, out, size, k, stride, _, groups, w, a in held[:, :9].astype(int).tolist()
    ]
    backend = SystolicDevice(accelerator="bitfusion")
    measured = backend.measure([Job(single(layer), refuse) for layer in layers], MeasurePlan())
    latency_s, energy_j = np.array([(one.median_s, one.energy_j) for one in measured]).T
    for part in (held[:, 6] == 1, held[:, 6] > 1, held[:, 6] > 0):  # pointwise, depthwise, all
        assert spearmanr(latency_s[part], held[part, 9])[0] >= TARGET
        assert spearmanr(energy_j[part], held[part, 10])[0] >= TARGET
        # most rows to the cycle
        assert np.median(np.abs(latency_s[part] / (held[part, 9] * 1e-3) - 1)) < 1e-9


def test_a_workload_needs_no_onnx() -> None:
    work: Workload = single(conv())
    [measured] = SystolicDevice(accelerator="bitfusion").measure([Job(work, refuse)], MeasurePlan())
    assert measured.samples_s == (cycles(conv()) / 500e6,)
