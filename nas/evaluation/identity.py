"""What stored evaluations depend on, to be compared between machines, and the studies that hold them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from nas.evaluation.sharing import Study
from nas.evaluation.store import EvaluationStore, Result
from nas.run.run import Run
from nas.search.objectives import objective
from supernet.space.space import Candidate
from supernet.train.checkpoint import content_hash


def open_study(
    run: Run,
    name: str,
    values: Sequence[str],
    evaluate: Callable[[Sequence[Candidate]], Iterator[Result]],
    *,
    group: int,
    identity: Callable[[], Mapping[str, Any]],
) -> Study:
    """Return the study called `name` of a run, whose evaluations have these values, by objective name."""
    grace_s, objectives = run.config.storage.grace_s, [objective(value) for value in values]
    few = len(values) > 1  # finalists
    open_store = partial(EvaluationStore, decisions=few, grace_s=grace_s)
    opened = partial(open_store, run.storage_url, name, run.family.space(), objectives)
    return Study(name, opened, evaluate, group, identity, run.shared, grace_s)


def supernet_identity(run: Run) -> dict[str, Any]:
    """Return what evaluations on the supernet depend on."""
    space, config = run.family.space(), run.config
    trained = run.quantized_path if config.quantized.epochs else run.checkpoint_path
    packages = ("trilobit", "torch")
    return _plain(
        {
            "space": {"name": space.family, "fingerprint": space.fingerprint},
            "data": run.task.fingerprint,
            "seed": config.seed,
            "train": run.trained_by,
            "quantized": config.section("quantized"),
            "weights": content_hash(trained) if trained.exists() else "absent",
            "images": config.sample.images,
            **run.sums.identity,
            "software": {name: version(name) for name in packages},
        }
    )


def device_identity(run: Run) -> dict[str, Any]:
    """Return what measured values depend on."""
    device = {"device": run.device.describe().to_json(), "measure": run.config.section("measure")}
    return _plain({**supernet_identity(run), **device, "profile": run.config.section("profile")})


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document as it comes back from the storage."""
    return dict(json.loads(json.dumps(document, default=str)))
