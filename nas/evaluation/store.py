"""Expensive evaluations in an Optuna storage: finished trials, found again by candidate.

`optuna-dashboard` opens the storage of every run; a resumed run finds its answers here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hw_profiles.documents import parse
from nas.run.storage import failures_of, open_storage
from nas.search.objectives import Objective
from supernet.space.space import Candidate, SearchSpace

GRACE_S = 60  # without a sign of life after which a worker counts as lost
Result = tuple[dict[str, float], dict[str, Any]]  # values by objective name; attributes


@dataclass(frozen=True)
class _Described:
    """What every trial of ours says of itself; one that a person asked for, with Optuna, says nothing."""

    id: str = ""
    genes: tuple[int, ...] = ()
    iqr_s: float | None = None


class EvaluationStore:
    """One study: candidates of one space, each with the values of the same objectives.

    Args:
        url: an Optuna storage, for example `sqlite:///run.db`.
        name: of the study; it names everything the values depend on, so that stale ones are never found.
        objectives: one value each per trial, in their own direction.
        decisions: whether every choice becomes a parameter that the dashboard can plot; this takes 4 times
            as long, so it is for
            studies of few trials.
        grace_s: after so many seconds without a sign of life a worker counts as lost.

    Raises:
        TrilobitError: the storage is damaged, cannot be reached or cannot be written.
    """

    def __init__(
        self,
        url: str,
        name: str,
        space: SearchSpace,
        objectives: Sequence[Objective],
        *,
        decisions: bool,
        grace_s: int = GRACE_S,
    ) -> None:
        self.url = url
        self.space = space
        self.storage = open_storage(url, grace_s=grace_s)
        self._objectives = tuple(objectives)
        self._decisions = decisions
        with failures_of(url):
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                directions=["maximize" if o.direction == "max" else "minimize" for o in objectives],
                load_if_exists=True,
            )
        self._known: dict[str, Result] = {}
        self.trials()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, candidate: Candidate) -> Result | None:
        """Return the values by objective name and attributes of a candidate, or None if it was never
        evaluated.
        """
        return self._known.get(candidate.id)

    def add(self, candidate: Candidate, values: Mapping[str, float], attributes: Mapping[str, Any]) -> None:
        """Keep one finished evaluation; committed when this returns."""
        trial = self.trial(candidate, self.ordered(values), attributes)
        with failures_of(self.url):
            self.study.add_trial(trial)
        self.remember(candidate.id, values, trial.user_attrs)

    # -- for those who share it --------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """Return all there are now; finished ones are known from here on. Where a candidate was evaluated
        twice, its first values stay.
        """
        with failures_of(self.url):
            trials: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
            for trial in trials:
                described = parse(_Described, trial.user_attrs)
                if trial.state == TrialState.COMPLETE and described.id not in self._known:
                    values = {o.name: value for o, value in zip(self._objectives, trial.values, strict=True)}
                    if all(map(math.isfinite, values.values())):  # else damaged: it is evaluated again
                        self.remember(described.id, values, trial.user_attrs)
        return trials

    def trial(
        self, candidate: Candidate, values: Sequence[float] | None, attributes: Mapping[str, Any]
    ) -> FrozenTrial:
        """Return a finished trial of the candidate; without values, one that waits for them."""
        decisions = self.space.decode(candidate) if self._decisions else {}
        options = {choice.name: choice.options for choice in self.space.choices}
        return create_trial(
            state=TrialState.WAITING if values is None else TrialState.COMPLETE,
            values=values,
            params=decisions,
            distributions={name: CategoricalDistribution(options[name]) for name in decisions},
            user_attrs={"id": candidate.id, "genes": list(candidate.genes), **attributes},
        )

    def ordered(self, values: Mapping[str, float]) -> list[float]:
        """Return values in the order in which the study holds them."""
        return [float(values[o.name]) for o in self._objectives]

    def remember(self, key: str, values: Mapping[str, float], attributes: Mapping[str, Any]) -> None:
        """Know a finished evaluation by its candidate's id."""
        floats = dict(zip((o.name for o in self._objectives), self.ordered(values), strict=True))
        self._known[key] = (floats, dict(attributes))
