"""A decoder's file with a key-value cache, beside the one that answers whole texts."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hw_profiles.graph.cache import with_cache
from hw_profiles.graph.formats import CACHE_DTYPES
from hw_profiles.graph.lowering import lower
from hw_profiles.graph.workload import Workload
from hw_profiles.runtimes.runtime import Executable
from nas.checks.check import DisagreementError
from nas.checks.parity import open_file
from nas.emit.to_onnx import emit
from nas.export.seal import DECODER_FILE
from supernet.families.family import Family
from supernet.graph.quantized_graph import QuantizedGraph
from supernet.graph.simulate import simulate
from supernet.space.space import Candidate

PROMPT, STEPS, TEXTS = 24, 8, 4  # that a file is checked on: 128 positions
AGREEMENT = 0.95  # of them whose likeliest next token is that of the simulation without a cache


def build_decoder(
    family: Family, candidate: Candidate, network: QuantizedGraph, *, portable: bool = False
) -> bytes:
    """Return the file of a decoder that reads what came before from caches, for texts of any length and
    number.

    Args:
        network: the candidate, with weights.

    Raises:
        DisagreementError: token by token it says something else than the simulation says of whole texts.
    """
    whole = replace(network, workload=lower(family.open_workload(candidate)))
    cached = replace(network, workload=with_cache(whole.workload))
    model = emit(cached, batch=None, portable=portable)
    ids = np.random.default_rng(0).integers(0, family.in_channels, (TEXTS, PROMPT + STEPS))
    said = _token_by_token(open_file(model), cached.workload, ids)
    expected = simulate(whole, torch.from_numpy(ids))
    agreement = float((said == expected.numpy().argmax(-1)).mean())
    if agreement < AGREEMENT:
        raise DisagreementError(
            f"{DECODER_FILE} agrees with the simulation at {agreement:.1%} of positions; expected "
            f"{AGREEMENT:.0%}"
        )
    return model


def _token_by_token(executable: Executable, work: Workload, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the likeliest next token at every position: of a prompt at once, then one at a time."""
    caches = [
        np.zeros((len(ids), int(x.shape[1]), 0, int(x.shape[3])), CACHE_DTYPES[x.format])
        for _, x in work.feeds[2:]
    ]
    said = []
    for start, end in ((0, PROMPT), *((at, at + 1) for at in range(PROMPT, ids.shape[1]))):
        places = np.ascontiguousarray(np.broadcast_to(np.arange(start, end), (len(ids), end - start)))
        given = (np.ascontiguousarray(ids[:, start:end]), places, *caches)
        feeds = dict(zip((feed.name for feed in work.feeds), given, strict=True))
        logits, *caches = executable.run(feeds).values()
        said.append(logits.argmax(-1))
    return np.concatenate(said, axis=1)
