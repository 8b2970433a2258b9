"""Policies evaluated by the workers of a cluster, which open a tune by its folder."""

import hashlib
import json
import threading
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from hw_profiles.errors import TrilobitError
from nas.evaluation.identity import differences
from nas.run.cluster import Cluster, RefusedError, software
from nas.run.config import ClusterSection
from nas.run.config_file import parse_as, render_config
from nas.run.tune_config import TuneConfig
from nas.tune.evaluation.context import TuneContext
from nas.tune.evaluation.quality import Find, PolicyQuality
from nas.tune.policies.space import policy_of
from nas.tune.setup.tuning import Tuning
from supernet.space.space import Genomes

_ONE_AT_A_TIME = threading.Lock()  # per process: files are run with the threads of the device


@dataclass(frozen=True)
class TuneReference:
    """A tune, for other processes.

    Attributes:
        folder: of the tune, which they see under the same path.
        config: its configuration as TOML, without what is the leader's own business.
        identity: what answers depend on, as JSON.
    """

    folder: str
    config: str
    identity: str


def found_by(cluster: Cluster, tuning: Tuning) -> Find:
    """Return how a cluster evaluates policies of a tune."""

    def find(genomes: Genomes) -> Iterator[tuple[int, PolicyQuality]]:
        evaluate = partial(quality_there, _reference_to(tuning))
        yield from cluster.answers(evaluate, [tuple(row) for row in genomes.tolist()])

    return find


def _reference_to(tuning: Tuning) -> TuneReference:
    config = replace(tuning.config, cluster=ClusterSection())
    identity = json.dumps(_identity(tuning), default=str)
    return TuneReference(str(tuning.folder.resolve()), render_config(config), identity)


def quality_there(reference: TuneReference, genes: tuple[int, ...]) -> PolicyQuality:
    """Return how good a policy is, found on a worker.

    Raises:
        RefusedError: the tune cannot be opened here, or is another one here; says what differs.
    """
    with _ONE_AT_A_TIME:
        comparison = _opened(reference).comparison
        return comparison.of_policy(policy_of(comparison.space, np.array(genes, np.int16)))


@lru_cache(maxsize=1)
def _opened(reference: TuneReference) -> TuneContext:
    """Open a tune: once, as long as no other is asked for."""
    folder = Path(reference.folder)
    if not folder.is_dir():
        raise RefusedError(
            f"it does not see the run's folder {folder}: share that folder, or copy it to the same path there"
        )
    config = parse_as(TuneConfig, tomllib.loads(reference.config), origin="")
    try:
        tuning = Tuning(folder, config)
        identity = json.loads(json.dumps(_identity(tuning), default=str))
    except (TrilobitError, OSError, ModuleNotFoundError) as error:
        raise RefusedError(" ".join(str(error).split())) from None
    if differing := differences(json.loads(reference.identity), identity):
        raise RefusedError(f"{'; '.join(differing)}; its folder, data and software must be the same")
    return TuneContext(tuning)


def _identity(tuning: Tuning) -> Mapping[str, Any]:
    """Return what answers depend on: by name what people may have got wrong, and all of it in one hash."""
    return {
        "model": hashlib.sha256(tuning.original).hexdigest()[:16],
        "quantization": hashlib.sha256(tuning.quantization_path.read_bytes()).hexdigest()[:16],
        "device": tuning.device.describe().to_json(),
        "versions": software(),
        "all": tuning.fingerprint("sample"),
    }
