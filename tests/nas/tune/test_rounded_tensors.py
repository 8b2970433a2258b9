"""Tensors that policies round are those that their files have in codes."""

import numpy as np
import pytest

from nas.emit.instructions import instructions
from nas.tune.policies.random_policies import random_policies
from nas.tune.policies.rounded_tensors import RoundedTensors
from nas.tune.policies.space import policy_of
from supernet.imported.following import keeps_scale
from tests.nas.emit.handmade import quantized
from tests.nas.tune.policies_of import network, terms_of


@pytest.mark.parametrize("name", ["conv", "attention"])
def test_rounded_is_what_files_have_in_codes(name: str) -> None:
    model = network(name)
    terms = terms_of(model, ("int8", "int4"))
    rng = np.random.default_rng(0)
    feeds = {each: rng.standard_normal(model.shapes[each], np.float32) for each in model.inputs}
    quantization = quantized(model, feeds, ("int8", "int4"))
    genomes = random_policies(terms.space, model, 30, rng=rng)
    tensors = RoundedTensors(terms)
    moved = {out: unit.inputs[0] for unit in model.units if keeps_scale(unit) for out in unit.outputs}

    def origin(tensor: str) -> str:
        return origin(moved[tensor]) if tensor in moved else tensor

    for genome, row in zip(genomes, tensors(genomes), strict=True):
        plan = instructions(quantization, policy_of(terms.space, genome))
        assert {tensors.names[i] for i in np.flatnonzero(row)} == {origin(e.tensor) for e in plan.quantize}
    assert not tensors(genomes[:1] * 0).any()
