"""The published latency table prices the published space."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw_profiles.measure.measurement import MeasurePlan
from hw_profiles.profiles.profile import DeviceProfile
from hw_profiles.profiles.profiler import profile_layers
from hw_profiles.runtimes.analytical.table import TableDevice
from nas.problem.costs import Costs, compile_costs
from predictors.table import distinct_layers
from supernet.families.family import load_family
from supernet.families.ofa_mobile import MobileFamily
from tests.published_data import DataFile

TOO_SMALL, BETWEEN, RESOLUTIONS = 128, 172, (128, 160, 172, 224)  # the table has 160, 176, 192, 208, 224
WIDTHS = (
    (24, 112),
    (32, 56),
    (48, 28),
    (96, 14),
    (136, 14),
    (192, 7),
)  # width, size at 224: first block, stages
EXACT = 1e-9
MERGED = 1e-3  # a unit that occurs at several resolutions counts the mean of its times there


@pytest.fixture(scope="module")
def note10(data_file: DataFile) -> Path:
    return data_file("ofa/note10_latency_lut.json")


@pytest.fixture(scope="module")
def family() -> MobileFamily:
    return published(("fp32",))


def published(formats: tuple[str, ...]) -> MobileFamily:
    """At few of its resolutions."""
    family = load_family("ofa-mbv3-w1.2", in_channels=3, classes=1000, formats=formats)
    assert isinstance(family, MobileFamily)
    return replace(family, resolutions=RESOLUTIONS)


def priced(family: MobileFamily, note10: Path) -> Costs:
    backend, layers = TableDevice(path=note10), distinct_layers(family.space(), family.terms())
    profile = DeviceProfile(backend.describe(), MeasurePlan(rounds=1))
    rng = np.random.default_rng(0)
    *_, profile = profile_layers(backend, profile, layers, emit=lambda work: b"", rng=rng)
    return compile_costs(family, profile)


@pytest.fixture(scope="module")
def costs(family: MobileFamily, note10: Path) -> Costs:
    return priced(family, note10)


def at(family: MobileFamily, resolution: int, n: int = 30) -> np.ndarray:
    """(n, g) random networks of one resolution, the largest first."""
    space = family.space()
    genomes = space.sample(n, rng=np.random.default_rng(resolution))
    genomes[0] = family.extremes()["largest/fp32"].genes
    genomes[:, space.columns["resolution"]] = space.choices[0].options.index(resolution)
    return genomes


@pytest.mark.parametrize("resolution", [160, 172, 224])
def test_a_network_costs_what_its_units_cost(
    family: MobileFamily, costs: Costs, note10: Path, resolution: int
) -> None:
    """Also at resolutions that were not measured, between those that were."""
    genomes, backend = at(family, resolution), TableDevice(path=note10)
    works = [family.workload(family.space().candidate(genome)) for genome in genomes]
    expected = [sum(backend.table.find(layer).latency_s for layer in work.layers) for work in works]
    np.testing.assert_allclose(costs.predict(genomes)["latency"], expected, rtol=EXACT)
    interpolated = any(backend.table.find(layer).how == "interpolated" for layer in works[0].layers)
    assert interpolated == (resolution == BETWEEN)


def test_the_largest_network_costs_what_its_published_entries_say(
    family: MobileFamily, costs: Costs, note10: Path
) -> None:
    """By the names in the file."""
    table = json.loads(note10.read_text())
    keys = [
        "Conv-input:224x224x3-output:112x112x24",
        "expanded_conv-input:112x112x24-output:112x112x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
        "Conv_1-input:7x7x192-output:7x7x1152",
        "AvgPool2D-input:7x7x1152-output:1x1x1152",
        "Conv_2-input:1x1x1152-output:1x1x1536",
        "Logits-input:1x1x1536-output:1000",
    ]
    for (before, large), (width, small), squeeze, curve in zip(
        WIDTHS[:-1], WIDTHS[1:], (0, 1, 0, 1, 1), (0, 0, 1, 1, 1), strict=True
    ):
        for skip, channels, size in ((0, before, large), *((1, width, small),) * 3):
            stride = 1 if skip else large // small
            keys.append(
                f"expanded_conv-input:{size}x{size}x{channels}-output:{small}x{small}x{width}"
                f"-expand:{6 * channels}-kernel:7-stride:{stride}-idskip:{skip}-se:{squeeze}-hs:{curve}"
            )
    milliseconds = sum(table["224"][key]["mean"] for key in keys)
    found = costs.predict(at(family, 224, 1))["latency"]
    np.testing.assert_allclose(found, [milliseconds * 1e-3], rtol=MERGED)


def test_what_the_table_lacks_cannot_be_chosen(family: MobileFamily, costs: Costs, note10: Path) -> None:
    assert np.isinf(costs.predict(at(family, TOO_SMALL))["latency"]).all()
    mixed = published(("fp32", "int8"))
    genomes = np.array([corner.genes for corner in mixed.extremes().values()], np.int16)
    finite = np.isfinite(priced(mixed, note10).predict(genomes)["latency"])
    assert dict(zip(mixed.extremes(), finite.tolist(), strict=True)) == {
        "smallest/fp32": False,  # too small an image
        "smallest/int8": False,
        "largest/fp32": True,
        "largest/int8": False,
    }
