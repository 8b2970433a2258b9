"""What evaluations depend on, to be compared between machines, and the studies that hold them."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from hw_profiles.errors import TrilobitError
from nas.evaluation.store import EvaluationStore
from nas.evaluation.study import Evaluate, Study
from nas.export.library.target import own_target
from nas.run.cluster import Cluster
from nas.run.run import Run
from nas.run.storage import failures_of, hidden
from nas.search.objectives import objective
from supernet.train.checkpoint import content_hash

IDENTITY = "run"  # the study's attribute that says of which run it is


def open_study(
    run: Run,
    name: str,
    values: Sequence[str],
    evaluate: Evaluate,
    *,
    group: int,
    cluster: Cluster | None,
    identity: Callable[[], Mapping[str, Any]],
) -> Study:
    """Return the study called `name` of a run, whose evaluations have these values, by objective name.

    Args:
        group: how many this process evaluates at a time.
        cluster: evaluates instead, and is given all that is asked for.
        identity: what they depend on, which a storage that several runs share must hold alike.
    """

    def open_store() -> EvaluationStore:
        few = len(values) > 1  # finalists
        objectives = [objective(value) for value in values]
        return EvaluationStore(run.storage_url, name, run.family.space(), objectives, decisions=few)

    def require(store: EvaluationStore) -> None:
        if run.shared:
            agree(store, identity())

    return Study(name, open_store, evaluate, group if cluster is None else None, require)


# -- of which run ------------------------------------------------------------------------------------------


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


def answer_identity(run: Run) -> dict[str, Any]:
    """Return what a network's answers on the device depend on, besides what its weights do: on what runs it,
    and on how integers add up there. Devices that only time may differ.
    """
    info = run.runtime.describe()
    runs = {"engine": info.engine, "version": info.engine_version, "sums": info.integer_sums}
    return _plain({"runtime": runs, "library": own_target(run)})


def agree(store: EvaluationStore, identity: Mapping[str, Any]) -> None:
    """Say of which run the store is, or see that it is of this one.

    Raises:
        TrilobitError: it is of another run; what differs is named.
    """
    with failures_of(store.url):
        stored = store.study.user_attrs.get(IDENTITY)
        if stored is None:
            store.study.set_user_attr(IDENTITY, identity)
            return
    if differing := differences(identity, stored):
        raise TrilobitError(
            f"this run is not the one in {hidden(store.url)}: {'; '.join(differing)}; give this run a "
            "database of its own, or the folder of the run that is there"
        )


def differences(local: Mapping[str, Any], remote: Mapping[str, Any]) -> list[str]:
    """Return what differs, by dotted name.

    >>> differences({"seed": 0, "train": {"epochs": 8}}, {"seed": 0, "train": {"epochs": 6}})
    ['train.epochs 8 here, 6 there']
    """
    local_values, remote_values = _flat(local), _flat(remote)
    names = dict.fromkeys((*local_values, *remote_values))
    absent = "absent"
    return [
        f"{name} {local_values.get(name, absent)} here, {remote_values.get(name, absent)} there"
        for name in names
        if local_values.get(name, absent) != remote_values.get(name, absent)
    ]


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document as it comes back from the storage."""
    return dict(json.loads(json.dumps(document, default=str)))
