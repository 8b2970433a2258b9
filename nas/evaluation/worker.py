"""`nas worker`: evaluates for a run that another machine leads."""

import argparse
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from rich.console import Console

from hw_profiles.errors import TrilobitError
from nas.evaluation.evaluate import Evaluator
from nas.evaluation.queue import count_crowd
from nas.evaluation.sharing import IDENTITY, POLL_S, Task, check_same, differences, work_off
from nas.run.documents import Environment, read_optional
from nas.run.run import Run, find_run
from nas.run.storage import Storage, failures_of, hidden, open_storage
from nas.run.wanted import parse_time

KINDS = ("samples", "finalists")
SAMPLES = "supernet-"  # how the names of their studies begin


def run_worker(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Work until nothing has come for `--idle`; gives what was done. With `--status`, only look.

    Raises:
        TrilobitError: no run folder or no storage, or the storage holds another run.
    """
    run = _configured(arguments)
    storage = open_storage(run.storage_url, grace_s=run.config.storage.grace_s)
    if arguments.status:
        return show_status(storage, run.storage_url, console)
    torch.set_num_threads(run.config.train.threads)
    idle_s = parse_time(arguments.idle) if arguments.idle else float("inf")
    done = work(run, storage, console, measure=arguments.measure, idle_s=idle_s)
    console.print("evaluated " + ", ".join(f"{done[name]} {name}" for name in KINDS))
    return {"storage": hidden(run.storage_url), "evaluated": {name: done[name] for name in KINDS}}


def _configured(arguments: argparse.Namespace) -> Run:
    """The folder's run, with this machine's storage and data."""
    run = find_run(arguments.output)
    config = run.config
    url = arguments.storage or config.storage.url
    if not url:
        raise TrilobitError(
            f"{arguments.output}: this run keeps its evaluations to itself; start `nas run --storage URL`, "
            "and give its workers the same --storage"
        )
    source = arguments.data or config.data.source
    here = replace(config, storage=replace(config.storage, url=url), data=replace(config.data, source=source))
    return Run(run.folder, here, leader=read_optional(run.folder / "env.json", Environment))


def work(run: Run, storage: Storage, console: Console, *, measure: bool, idle_s: float) -> Mapping[str, int]:
    """Evaluate whatever waits, until nothing has waited for `idle_s`; counts by kind.

    Finalists are measured only where that gives the device's own numbers: where they are looked up, or where
    `measure` says that this machine is the device; even then, only if it describes itself as the run's does.

    Raises:
        TrilobitError: the storage holds another run, or fails, or `measure` is set and there is no device.
    """
    tasks, done, joined = _tasks(run, console, measure=measure), Counter[str](), dict[str, Task]()
    with console.status("waiting for evaluations") as status:
        last = time.monotonic()
        while time.monotonic() - last < idle_s:
            for name, task in _join(tasks, joined, run, storage).items():
                joined[name] = task
                who = f"{name}: joined {hidden(run.storage_url)} as {task.queue.name}"
                console.print(who, markup=False, soft_wrap=True)
            worked = _work_once(joined)
            done.update(worked)
            if worked:
                last = time.monotonic()
                status.update("evaluated " + ", ".join(f"{done[name]} {name}" for name in joined))
            else:
                time.sleep(POLL_S)
    return done


def _tasks(run: Run, console: Console, *, measure: bool) -> dict[str, Task]:
    """What this machine can evaluate, by kind."""
    evaluator = Evaluator(run)
    tasks = {"samples": evaluator.sampling}
    try:
        if measure or run.recorded:
            tasks["finalists"] = evaluator.measuring
            device = run.backend.describe()
            console.print(f"finalists: on {device.name} ({device.cpu})", markup=False, soft_wrap=True)
    except TrilobitError as error:
        if measure:
            raise
        console.print(f"finalists: left to others ({error})", markup=False, soft_wrap=True)
    return tasks


def _work_once(joined: Mapping[str, Task]) -> dict[str, int]:
    """One group of the first kind that has any waiting."""
    for name, task in joined.items():
        if count := work_off(task):
            return {name: count}
    return {}


def _join(
    tasks: Mapping[str, Task], joined: Mapping[str, Task], run: Run, storage: Storage
) -> dict[str, Task]:
    """Those not joined yet that the leading machine has begun with.

    Raises:
        TrilobitError: it leads another run than this one.
    """
    left = {name: task for name, task in tasks.items() if name not in joined}
    if not left or not run.has_finished("train"):  # in a shared folder: its weights are still to come
        return {}
    with failures_of(run.storage_url):
        studies = [study for study in storage.get_all_studies() if IDENTITY in study.user_attrs]
    offered = {study.study_name: study.user_attrs[IDENTITY] for study in studies}
    for task in left.values():
        if task.study in offered:
            check_same(run.storage_url, task.identity(), offered[task.study])
        elif others := [found for study, found in offered.items() if _is_rival(study, task.study)]:
            ours = task.identity()
            check_same(run.storage_url, ours, min(others, key=lambda theirs: len(differences(ours, theirs))))
    return {name: task for name, task in left.items() if task.study in offered}


def _is_rival(study: str, wanted: str) -> bool:
    """Whether a study means that `wanted` will not come: the samples of another run do; finalists of the same
    supernet on another device do not.
    """
    return study.startswith(SAMPLES) and wanted.startswith(SAMPLES)


def show_status(storage: Storage, url: str, console: Console) -> dict[str, Any]:
    """Print and give, of every study, what is done, waits and is claimed, and by whom."""
    found = {}
    with failures_of(url):
        for name in sorted(study.study_name for study in storage.get_all_studies()):
            trials = storage.get_all_trials(storage.get_study_id_from_name(name), deepcopy=False)
            found[name] = asdict(count_crowd(trials))
            line = f"{name}: {found[name]['done']} done, {count_crowd(trials)}"
            console.print(line, markup=False, soft_wrap=True)
    return {"storage": hidden(url), "studies": found}
