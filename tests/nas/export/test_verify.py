"""Files against simulation, on real digits: they agree where they should, or are caught."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hw_profiles.runtimes.ort.runtime import expected_kernels
from nas.checks.check import DisagreementError
from nas.checks.parity import AGREEMENT, check_parity, file_metric, file_outputs
from nas.emit import to_onnx
from nas.emit.to_onnx import emit
from supernet.families.family import Family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.space.space import Candidate
from supernet.tasks.evaluate import simulated_metric
from supernet.tasks.image_classification import ImageClassification

Build = Callable[[Candidate], QuantizedGraph]


def with_one_scale(graph: Any, name: str, value: str, params: Any, *_: Any, **__: Any) -> str:
    """The usual form of a conversion to fp32."""
    return str(graph.node("DequantizeLinear", name, [value, *graph.stored(name, params)]))


def mixed(family: Family, n: int) -> list[Candidate]:
    """Random architectures of random policies."""
    space = family.space()
    return [space.candidate(genome) for genome in space.sample(n, rng=np.random.default_rng(2))]


def test_uniform_files_predict_exactly_what_the_simulation_predicts(
    family: Family, build: Build, digits: ImageClassification
) -> None:
    for candidate in family.extremes().values():
        network = build(candidate)
        parity = check_parity(emit(network), network, digits.validation, digits)
        assert (parity.agreement, parity.images) == (1.0, len(digits.validation.labels))


def test_mixed_files_pass_with_the_kernels_of_their_policy(
    family: Family, build: Build, digits: ImageClassification
) -> None:
    for candidate in mixed(family, 4):
        network = build(candidate)
        parity = check_parity(emit(network), network, digits.validation, digits)
        assert parity.agreement >= AGREEMENT
        asked = [p for p in family.policy(candidate).values() if p.activation == "int8"]
        sums = [layer for layer in network.workload.layers if layer.is_add or layer.kind == "pool"]
        with_them = len(asked) + sum(layer.activation_format == "int8" for layer in sums)
        assert 0 < parity.integer_layers == parity.integer_kernels == with_them


def test_accuracy_through_the_file_is_that_of_the_simulation(
    family: Family, build: Build, digits: ImageClassification
) -> None:
    part = digits.validation
    for name in ("largest/fp32", "largest/int8"):
        network = build(family.extremes()[name])
        model = emit(network)
        accuracy = file_metric(model, part, digits)
        assert accuracy == simulated_metric(network, part, digits)
        assert accuracy == np.mean(file_outputs(model, part, digits).argmax(axis=1) == part.labels)
        assert 2 / len(digits.classes) < accuracy < 1  # neither chance nor a part that it has learnt by heart


@pytest.mark.parametrize("corner", ["largest/fp32", "largest/int8"])
def test_a_file_with_other_weights_is_caught(
    family: Family, build: Build, digits: ImageClassification, corner: str
) -> None:
    network = build(family.extremes()[corner])
    head = network.parameters["head"]
    rolled = replace(head.weight, codes=np.roll(head.weight.codes, 1, axis=0))
    tampered = replace(head, weight=rolled)
    other = replace(network, parameters={**network.parameters, "head": tampered})
    with pytest.raises(DisagreementError, match="file and simulation agree on"):
        check_parity(emit(other), network, digits.validation, digits)


def test_a_file_of_another_policy_is_caught(
    family: Family, build: Build, digits: ImageClassification
) -> None:
    fp32, int8 = (build(family.extremes()[f"smallest/{name}"]) for name in ("fp32", "int8"))
    for file, network in ((fp32, int8), (int8, fp32)):
        with pytest.raises(DisagreementError, match="kernels where the policy asks for"):
            check_parity(emit(file), network, digits.validation, digits)


def test_what_is_quantized_silently_is_caught(
    family: Family, build: Build, digits: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An fp32 convolution between two integer ones becomes one too where it is fed by a single scale."""
    space = family.space()
    decisions = space.decode(family.extremes()["smallest/int8"])
    network = build(space.encode({**decisions, "s1.b0.expand.format": "fp32"}))
    assert expected_kernels(network.workload)["Conv"] == 1
    check_parity(emit(network), network, digits.validation, digits)
    monkeypatch.setattr(to_onnx._Graph, "_dequantize", with_one_scale)
    with pytest.raises(DisagreementError, match="kernels where the policy asks for"):
        check_parity(emit(network), network, digits.validation, digits)
