"""Muon on filters: by an independent orthogonalisation, and nothing else of the network."""

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from supernet.families.family import load_family
from supernet.layers.elastic import ElasticConvNorm
from supernet.train.config import TrainConfig
from supernet.train.optimiser import FiltersAndRest, as_matrix, dense_filters, make_optimisation

MUON = TrainConfig(optimiser="muon", learning_rate=0.2, rest_rate=0.1, bias_factor=4.0)


@pytest.fixture
def net() -> Any:
    family = load_family("digits-staged", in_channels=1, classes=10)
    return family.supernet(rng=np.random.default_rng(0)).to(memory_format=torch.channels_last)


def orthogonalised(matrix: np.ndarray) -> np.ndarray:
    """By singular values: each becomes what five steps of the quintic make of it."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (16, 2, 1, 1)])
def test_filters_are_trained_by_orthogonalised_momentum(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape, generator=generator).to(memory_format=layout))
    bias = torch.nn.Parameter(torch.zeros(3))
    optimiser = FiltersAndRest([weight], [{"params": [bias]}], 0.6, 0.9)
    optimiser.param_groups[0]["lr"] = 0.25
    expected, momentum = weight.detach().flatten(1).double().numpy().copy(), np.zeros((shape[0], 1))
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        weight.grad = gradient.clone()
        optimiser.step()
        g = gradient.flatten(1).double().numpy()
        momentum = 0.6 * momentum + 0.4 * g
        expected *= np.sqrt(len(expected)) / np.linalg.norm(expected)
        stretch = max(1, len(g) / g.shape[1]) ** 0.5
        expected -= 0.25 * stretch * orthogonalised(0.4 * g + 0.6 * momentum)
    # torch orthogonalises in bf16, which has 8 bits
    np.testing.assert_allclose(weight.detach().flatten(1).numpy(), expected, atol=0.03)


def test_a_matrix_is_a_view_of_its_filters() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.randn(4, 3, 5, 5).to(memory_format=layout)
        as_matrix(weight, like=weight).zero_()
        assert not weight.any()


def test_the_rest_is_trained_by_sgd(net: Any) -> None:
    reference = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    optimisation = make_optimisation(net, MUON)
    filters = {id(p) for p in dense_filters(net)}
    rest = {name for name, p in net.named_parameters() if id(p) not in filters}
    assert rest >= {"stem.weight", "classifier.weight", "classifier.bias", "head.norm.bias"}
    groups = [
        {"params": [reference[n] for n in rest if reference[n].ndim > 1], "lr": 0.05, "weight_decay": 1e-4},
        {"params": [reference[n] for n in rest if reference[n].ndim == 1 and not n.endswith("bias")]},
        {"params": [reference[n] for n in rest if n.endswith("bias")], "lr": 0.2},
    ]
    sgd = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    optimisation.set_rate(0.5)
    for _ in range(2):
        for name, p in net.named_parameters():
            p.grad = torch.randn_like(p)
            reference[name].grad = p.grad.clone()
        optimisation.optimiser.step()
        sgd.step()
    for name, p in net.named_parameters():
        if name in rest:
            assert torch.equal(p, reference[name]), name


def test_filters_are_dense_convolutions_behind_the_stem(net: Any) -> None:
    filters = {id(p) for p in dense_filters(net)}
    for name, module in net.named_modules():
        if isinstance(module, ElasticConvNorm):
            assert (id(module.weight) in filters) == (not module.depthwise and name != "stem"), name


def test_a_filter_changes_by_the_learning_rate_whatever_its_shape(net: Any) -> None:
    optimisation = make_optimisation(net, MUON)
    optimisation.set_rate(1.0)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    filters = list(islice(dense_filters(net), 12))
    before = [p.detach() * (len(p) ** 0.5 / p.detach().norm()) for p in filters]
    optimisation.optimiser.step()
    for p, former in zip(filters, before, strict=True):
        share = float((p.detach() - former).norm() / former.norm())
        assert share == pytest.approx(MUON.learning_rate, rel=0.35)  # singular values end in .7 to 1.2


def test_a_filter_without_gradient_keeps_its_direction(net: Any) -> None:
    optimisation = make_optimisation(net, MUON)
    optimisation.set_rate(1.0)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimisation.optimiser.step()
    for name, p in net.named_parameters():
        ratio = p.detach().norm() / before[name].norm() if before[name].any() else 1.0
        torch.testing.assert_close(p.detach(), before[name] * ratio)


def test_factor_of_biases_is_for_all_optimisers(net: Any) -> None:
    biases = {id(p) for name, p in net.named_parameters() if name.endswith("bias")}
    for optimiser in ("adamw", "sgd", "muon"):
        optimisation = make_optimisation(net, TrainConfig(optimiser=optimiser, bias_factor=8.0))
        optimisation.set_rate(1.0)
        *others, fast = optimisation.optimiser.param_groups
        assert {id(p) for p in fast["params"]} == biases
        assert fast["lr"] == 8 * others[-1]["lr"]
        assert fast["weight_decay"] == 0
