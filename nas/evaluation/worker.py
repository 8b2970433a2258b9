"""`nas worker`: evaluates for a run that another machine leads."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from hw_profiles.errors import TrilobitError
from nas.evaluation.builder import NetworkBuilder
from nas.evaluation.on_device import DeviceEvaluator
from nas.evaluation.on_supernet import SupernetEvaluator
from nas.evaluation.queue import count_workers
from nas.evaluation.sharing import IDENTITY, POLL_S, Study, check_same, differences, work_off
from nas.run.documents import Environment, read_optional
from nas.run.reporting import QUIET, Reporter
from nas.run.run import Run, find_run
from nas.run.storage import Storage, failures_of, hidden, open_storage
from nas.run.wanted import parse_time

KINDS = ("samples", "finalists")
SAMPLES = "supernet-"  # how the names of their studies begin


def run_worker(
    folder: Path,
    *,
    storage_url: str | None = None,
    data: str | None = None,
    measure: bool = False,
    idle: str | None = None,
    reporter: Reporter = QUIET,
) -> dict[str, Any]:
    """Evaluate for the run in `folder` until nothing has come for `idle`; return what was done.

    Args:
        storage_url, data: on this machine, where they are not those of the run.
        measure: whether finalists are measured too: this machine is the run's device.
        idle: a time such as `10m`; None stays.

    Raises:
        TrilobitError: no run folder or no storage, or the storage holds another run.
    """
    run = _configured(folder, storage_url, data)
    storage = open_storage(run.storage_url, grace_s=run.config.storage.grace_s)
    torch.set_num_threads(run.config.train.threads)
    idle_s = parse_time(idle) if idle else float("inf")
    done = work(run, storage, reporter, measure=measure, idle_s=idle_s)
    reporter.say("evaluated " + ", ".join(f"{done[name]} {name}" for name in KINDS))
    return {"storage": hidden(run.storage_url), "evaluated": {name: done[name] for name in KINDS}}


def worker_status(
    folder: Path, *, storage_url: str | None = None, reporter: Reporter = QUIET
) -> dict[str, Any]:
    """Print and return what of the run in `folder` is done, waits and is claimed, and by whom.

    Raises:
        TrilobitError: as in `run_worker`.
    """
    run = _configured(folder, storage_url, None)
    storage = open_storage(run.storage_url, grace_s=run.config.storage.grace_s)
    return show_status(storage, run.storage_url, reporter)


def _configured(folder: Path, storage_url: str | None, data: str | None) -> Run:
    """Return the folder's run, with this machine's storage and data."""
    run = find_run(folder)
    config = run.config
    url = storage_url or config.storage.url
    if not url:
        raise TrilobitError(
            f"{folder}: this run keeps its evaluations to itself; start `nas run --storage URL`, "
            "and give its workers the same --storage"
        )
    source = data or config.data.source
    here = replace(config, storage=replace(config.storage, url=url), data=replace(config.data, source=source))
    return Run(run.folder, here, leader=read_optional(run.folder / "env.json", Environment))


def work(
    run: Run, storage: Storage, reporter: Reporter, *, measure: bool, idle_s: float
) -> Mapping[str, int]:
    """Evaluate whatever waits, until nothing has waited for `idle_s`; counts by kind.

    Finalists are measured only where that gives the device's own numbers: where they are looked up, or where
    `measure` says that this machine is the device; even then, only if it describes itself as the run's does.

    Raises:
        TrilobitError: the storage holds another run, or fails, or `measure` is set and there is no device.
    """
    studies, done, joined = _studies(run, reporter, measure=measure), Counter[str](), dict[str, Study]()
    with reporter.status("waiting for evaluations") as status:
        last = time.monotonic()
        while time.monotonic() - last < idle_s:
            for name, study in _join(studies, joined, run, storage).items():
                joined[name] = study
                who = f"{name}: joined {hidden(run.storage_url)} as {study.queue.name}"
                reporter.say(who)
            evaluated = _work_once(joined)
            done.update(evaluated)
            if evaluated:
                last = time.monotonic()
                status("evaluated " + ", ".join(f"{done[name]} {name}" for name in joined))
            else:
                time.sleep(POLL_S)
    return done


def _studies(run: Run, reporter: Reporter, *, measure: bool) -> dict[str, Study]:
    """Return what this machine can evaluate, by kind."""
    builder = NetworkBuilder(run)
    studies = {"samples": SupernetEvaluator(builder).sampling}
    try:
        if measure or run.recorded:
            studies["finalists"] = DeviceEvaluator(builder).measuring
            device = run.device.describe()
            reporter.say(f"finalists: on {device.name} ({device.cpu})")
    except TrilobitError as error:
        if measure:
            raise
        reporter.say(f"finalists: left to others ({error})")
    return studies


def _work_once(joined: Mapping[str, Study]) -> dict[str, int]:
    """Evaluate one group of the first kind that has any waiting."""
    for name, study in joined.items():
        if count := work_off(study):
            return {name: count}
    return {}


def _join(
    studies: Mapping[str, Study], joined: Mapping[str, Study], run: Run, storage: Storage
) -> dict[str, Study]:
    """Return the studies not joined yet that the leading machine has begun with.

    Raises:
        TrilobitError: it leads another run than this one.
    """
    left = {name: study for name, study in studies.items() if name not in joined}
    if not left or not run.has_finished("train"):  # in a shared folder: its weights are still to come
        return {}
    with failures_of(run.storage_url):
        stored = [study for study in storage.get_all_studies() if IDENTITY in study.user_attrs]
    identities = {study.study_name: study.user_attrs[IDENTITY] for study in stored}
    for study in left.values():
        if study.name in identities:
            check_same(run.storage_url, study.identity(), identities[study.name])
        elif others := [identity for name, identity in identities.items() if _is_rival(name, study.name)]:
            ours = study.identity()
            check_same(run.storage_url, ours, min(others, key=lambda theirs: len(differences(ours, theirs))))
    return {name: study for name, study in left.items() if study.name in identities}


def _is_rival(study: str, missing: str) -> bool:
    """Return whether a study means that `missing` will not come: the samples of another run do; finalists of
    the same supernet on another device do not.
    """
    return study.startswith(SAMPLES) and missing.startswith(SAMPLES)


def show_status(storage: Storage, url: str, reporter: Reporter) -> dict[str, Any]:
    """Print and give, of every study, what is done, waits and is claimed, and by whom."""
    statuses = {}
    with failures_of(url):
        for name in sorted(study.study_name for study in storage.get_all_studies()):
            trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
            statuses[name] = asdict(count_workers(trials))
            line = f"{name}: {statuses[name]['done']} done, {count_workers(trials)}"
            reporter.say(line)
    return {"storage": hidden(url), "studies": statuses}
