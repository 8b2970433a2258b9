"""Networks with weights and activations of 4, 6 and 8 bits side by side, as files."""

import numpy as np
import pytest
import torch
from torch import nn

from hw_profiles.runtimes.ort.runtime import open_exactly
from nas.emit.to_onnx import emit
from supernet.families.family import load_family
from supernet.graph.simulate import simulate
from supernet.graph.subnet import recalibrate
from supernet.ptq.calibrate import observe, quantize

BATCH = 2


@pytest.mark.slow
def test_files_of_mixed_widths_compute_what_the_simulation_computes() -> None:
    family = load_family("apq-proxyless", in_channels=3, classes=10)
    space, net = family.space(), family.supernet(rng=np.random.default_rng(0))
    images = torch.randn(BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    genomes = space.sample(8, rng=np.random.default_rng(3))
    for genome in genomes[genomes[:, space.columns["policy"]] == 1][:2]:
        candidate = space.candidate(genome)
        subnet = family.extract(net, candidate)
        classifier = subnet.layer("classifier")
        assert isinstance(classifier, nn.Linear)
        nn.init.normal_(classifier.weight, generator=torch.Generator().manual_seed(1))
        recalibrate(subnet, [images])
        network = quantize(subnet, family.workload(candidate), observe(subnet, images))
        widths = {layer.activation_format for layer in network.workload.layers}
        assert widths >= {"int4", "int6", "int8"}
        (logits,) = open_exactly(emit(network, batch=BATCH)).run(None, {"image": images.numpy()})
        simulated = simulate(network, images).numpy()
        np.testing.assert_allclose(logits, simulated, rtol=0, atol=1e-5 * np.abs(simulated).max())
        assert np.ptp(simulated) > 0
