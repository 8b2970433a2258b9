"""Expensive evaluations in an Optuna storage: finished trials, found again by candidate. The only importer
of Optuna.

`optuna-dashboard` opens the storage of every run; a resumed run finds its answers here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from hw_profiles.errors import TrilobitError
from nas.objectives import Objective
from supernet.space import Candidate, SearchSpace


class EvaluationStore:
    """One study: candidates of one space, each with the values of the same objectives.

    Args:
        url: an Optuna storage, for example `sqlite:///run.db`.
        name: of the study; it names everything the values depend on, so that stale ones are never found.
        objectives: one value each per trial, in their own direction.
        decisions: whether every choice becomes a parameter that the dashboard can plot; this takes 4 times
            as long, so it is for
            studies of few trials.

    Raises:
        TrilobitError: the storage is damaged, cannot be reached or cannot be written.
    """

    def __init__(
        self, url: str, name: str, space: SearchSpace, objectives: Sequence[Objective], *, decisions: bool
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._objectives = tuple(objectives)
        self._decisions = decisions
        self._url = url
        with _failures_of(url):
            self._study = optuna.create_study(
                storage=url,
                study_name=name,
                directions=["maximize" if o.direction == "max" else "minimize" for o in objectives],
                load_if_exists=True,
            )
            finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._known = {
            trial.user_attrs["id"]: (self._by_name(trial.values), dict(trial.user_attrs))
            for trial in finished
        }

    def __len__(self) -> int:
        return len(self._known)

    def get(self, candidate: Candidate) -> tuple[dict[str, float], dict[str, Any]] | None:
        """Values by objective name and attributes of a candidate, or None if it was never evaluated."""
        return self._known.get(candidate.id)

    def add(self, candidate: Candidate, values: Mapping[str, float], attributes: Mapping[str, Any]) -> None:
        """Keep one finished evaluation; committed when this returns."""
        decisions = self._space.decode(candidate) if self._decisions else {}
        options = {choice.name: choice.options for choice in self._space.choices}
        attrs = {"id": candidate.id, "genes": list(candidate.genes), **attributes}
        ordered = [float(values[o.name]) for o in self._objectives]
        trial = create_trial(
            values=ordered,
            params=decisions,
            distributions={name: CategoricalDistribution(options[name]) for name in decisions},
            user_attrs=attrs,
        )
        with _failures_of(self._url):
            self._study.add_trial(trial)
        self._known[candidate.id] = (self._by_name(ordered), attrs)

    def _by_name(self, values: Sequence[float]) -> dict[str, float]:
        return {o.name: value for o, value in zip(self._objectives, values, strict=True)}


@contextmanager
def _failures_of(url: str) -> Iterator[None]:
    """A storage that fails, for example on a full disk, in one line; finished evaluations stay in it."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise TrilobitError(
            f"{url}: {cause}; make room or mend its permissions, or delete it to evaluate everything again"
        ) from None
