"""FormatSensitivity against direct evaluation of the replaced networks, and what its table promises."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError
from supernet.families.mbconv import MBConvFamily, Stage
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from supernet.sensitivity.kl import (
    FormatSensitivity,
    divergence,
    format_choices,
    log_probabilities,
    measure_sensitivity,
)
from supernet.space.space import Candidate, Choice, SearchSpace
from supernet.tasks.evaluate import build_network, calibration_examples, network_builder
from supernet.tasks.image_classification import ImageClassification

FAMILY = MBConvFamily(
    "tiny", (8,), 8, (Stage(8, 1, (1, 2), (8, 16), (3,)),), 16, 1, 10, ("fp32", "int8", "int4")
)
SPACE, LARGEST = FAMILY.space(), FAMILY.extremes()["largest/fp32"]


def supernet() -> nn.Module:
    """Untrained, but every layer matters: new blocks pass on what they get, and all classes are the same."""
    net = FAMILY.supernet(rng=np.random.default_rng(0)).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    return net


NET = supernet()


@pytest.fixture(scope="module")
def build(few_digits: ImageClassification) -> Callable[[Candidate], QuantizedGraph]:
    return network_builder(FAMILY, NET, LARGEST, few_digits, calibration_examples(few_digits, seed=0))


@pytest.fixture(scope="module")
def images(few_digits: ImageClassification) -> Tensor:
    return few_digits.inputs(few_digits.validation, FAMILY.resolution(LARGEST))


@pytest.fixture(scope="module")
def sensitivity(build: Callable[[Candidate], QuantizedGraph], images: Tensor) -> FormatSensitivity:
    return FormatSensitivity(dict(measure_sensitivity(SPACE, format_choices(SPACE), LARGEST, build, images)))


def test_is_the_divergence_of_the_network_with_that_layer_alone_replaced(
    sensitivity: FormatSensitivity, images: Tensor, few_digits: ImageClassification
) -> None:
    calibration = calibration_examples(few_digits, seed=0)

    def probabilities(candidate: Candidate) -> np.ndarray:
        network = build_network(FAMILY, NET, candidate, few_digits, calibration)
        return np.asarray(softmax(simulate(network, images).numpy().astype(np.float64), axis=1))

    plain = probabilities(LARGEST)
    for name in ("stem.format", "s0.b1.depthwise.format", "classifier.format"):
        for option in ("int8", "int4"):
            replaced = SPACE.encode({**SPACE.decode(LARGEST), name: option})
            expected = rel_entr(plain, probabilities(replaced)).sum(axis=1).mean()
            found = sensitivity.options[name][SPACE.choices[SPACE.columns[name]].options.index(option)]
            assert found == pytest.approx(expected, rel=1e-6)


def test_every_choice_of_formats_has_a_number_for_each_option(sensitivity: FormatSensitivity) -> None:
    precision = [choice for choice in SPACE.choices if choice.kind == "precision"]
    assert list(sensitivity.options) == [choice.name for choice in precision]
    for choice in precision:
        values = sensitivity.options[choice.name]
        assert len(values) == len(choice.options)
        assert values[0] == 0
        assert values[1] < values[2]  # fewer bits hurt more


def test_a_choice_that_another_switches_on_is_measured_with_the_other_on(
    build: Callable[[Candidate], QuantizedGraph], images: Tensor
) -> None:
    """As in a space whose first choice says whether a network is quantized at all."""
    alive = (("switch", ("quantized",)),)
    layer = Choice("layer", ("int8", "int4"), "precision", alive)
    space = SearchSpace("switched", (Choice("switch", ("fp32", "quantized"), "precision"), layer))
    corners = {(0, 0): "largest/fp32", (1, 0): "largest/int8", (1, 1): "largest/int4"}
    networks: dict[tuple[int, ...], QuantizedGraph] = {
        genes: build(FAMILY.extremes()[name]) for genes, name in corners.items()
    }
    plain = space.candidate(np.zeros(2, np.int16))
    found = dict(
        measure_sensitivity(space, format_choices(space), plain, lambda one: networks[one.genes], images)
    )
    plain_, int8, int4 = (log_probabilities(networks[genes], images) for genes in corners)
    assert found == {
        "switch": (0.0, divergence(plain_, int8)),
        "layer": (0.0, divergence(int8, int4)),
    }


def test_what_the_largest_network_cannot_have_does_no_sensitivity(
    build: Callable[[Candidate], QuantizedGraph], images: Tensor
) -> None:
    only_small = Choice("layer", ("fp32", "int4"), "precision", (("size", ("small",)),))
    space = SearchSpace("other", (Choice("size", ("small", "large")), only_small))
    largest = space.candidate(np.array([1, 0], np.int16))
    found = dict(
        measure_sensitivity(space, format_choices(space), largest, lambda one: build(LARGEST), images)
    )
    assert found == {"layer": (0.0, 0.0)}


def test_divergence_is_zero_of_itself_and_never_negative() -> None:
    rows = torch.log_softmax(torch.randn(50, 10, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    assert divergence(rows, rows) == 0
    assert divergence(rows, rows.roll(1, 0)) > 0


@pytest.mark.parametrize("values", [(), (0.1, 0.2), (0.0, -1.0), (0.0, float("nan"))])
def test_refuses_what_is_no_sensitivity(values: tuple[float, ...]) -> None:
    with pytest.raises(TrilobitError, match=r"sensitivity of stem\.format is .*; wanted finite numbers"):
        FormatSensitivity({"stem.format": values})
