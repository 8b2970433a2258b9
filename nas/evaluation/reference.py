"""A run as the workers of a cluster open it: by its folder, which they see under the same path, and compared
with what the leading process sees before anything is evaluated.
"""

import json
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from hw_profiles.errors import TrilobitError
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.identity import answer_identity, device_identity, differences, supernet_identity
from nas.run.cluster import RefusedError, software
from nas.run.config import ClusterSection, StorageSection
from nas.run.config_file import parse_config, render_config
from nas.run.default_formats import formats_of_layers
from nas.run.documents import Environment
from nas.run.run import Run

# what evaluations of a kind depend on besides the supernet, its data and the software
DEPENDS: Mapping[str, Callable[[Run], Mapping[str, Any]]] = {
    "supernet": lambda run: {},
    "answers": answer_identity,
    "device": device_identity,
}
OPEN = 2  # runs that a worker keeps open: two commands may share a cluster
_ONE_AT_A_TIME = threading.Lock()  # per process: one evaluation has the threads of torch that the run says


@dataclass(frozen=True)
class RunReference:
    """A run, for other processes.

    Attributes:
        folder: of the run.
        config: its configuration as TOML, without what is the leader's own business.
        sums, formats: what the run's device does with large integer sums, and the formats of its layers:
            weights are rounded for it, whatever processor a worker has.
        identity: what evaluations on the supernet depend on, and all software, as JSON.
        kind: of evaluation, one of `DEPENDS`.
        depends: what that kind depends on besides, as JSON.
    """

    folder: str
    config: str
    sums: str
    formats: tuple[str, ...]
    identity: str
    kind: str
    depends: str

    @property
    def base(self) -> "RunReference":
        """What a worker opens once, whatever kinds of evaluation it does."""
        return replace(self, kind="supernet", depends="{}")


def reference_to(run: Run, kind: str) -> RunReference:
    """Return how workers open a run for one kind of evaluation."""
    config = replace(run.config, storage=StorageSection(), cluster=ClusterSection())
    return RunReference(
        str(run.folder.resolve()),
        render_config(config),
        str(run.sums),
        formats_of_layers(run.family.space()),
        _text({**supernet_identity(run), "versions": software()}),
        kind,
        _text(DEPENDS[kind](run)),
    )


@contextmanager
def opened(reference: RunReference) -> Iterator[NetworkBuilder]:
    """Yield what builds the networks of a run here, on a worker; nothing else of this process evaluates
    meanwhile.

    Raises:
        RefusedError: the run cannot be opened here, or is another one here; says what differs.
    """
    with _ONE_AT_A_TIME:
        builder = builder_of(reference.base)
        _check(reference)
        torch.set_num_threads(builder.run.config.train.threads)
        yield builder


@lru_cache(maxsize=OPEN)
def builder_of(reference: RunReference) -> NetworkBuilder:
    """Open a run on a worker: once, as long as not too many others are asked for.

    Args:
        reference: the base of one.

    Raises:
        RefusedError: see `opened`.
    """
    folder = Path(reference.folder)
    if not folder.is_dir():
        raise RefusedError(
            f"it does not see the run's folder {folder}: share that folder, or copy it to the same path there"
        )
    environment = Environment({}, 0, integer_sums=reference.sums, formats=reference.formats)  # type: ignore[arg-type]
    config = parse_config(tomllib.loads(reference.config), origin="")
    with _refusing():
        run = Run(folder, config, leader=environment)
        _require_same({**supernet_identity(run), "versions": software()}, reference.identity)
    return NetworkBuilder(run)


@lru_cache(maxsize=OPEN * len(DEPENDS))
def _check(reference: RunReference) -> None:
    """See that what a kind of evaluation depends on is the same here; once."""
    with _refusing():
        _require_same(DEPENDS[reference.kind](builder_of(reference.base).run), reference.depends)


@contextmanager
def _refusing() -> Iterator[None]:
    """Say of what is missing here, a file or an engine, that this worker cannot evaluate."""
    try:
        yield
    except (TrilobitError, OSError, ModuleNotFoundError) as error:
        raise RefusedError(" ".join(str(error).split())) from None


def _require_same(identity: Mapping[str, Any], leader_identity: str) -> None:
    # said from the leader's side: "here" is where people read it
    if differing := differences(json.loads(leader_identity), json.loads(_text(identity))):
        raise RefusedError(f"{'; '.join(differing)}; its folder, data and software must be the same")


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, default=str)
