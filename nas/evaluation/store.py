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
    ) -> None:
        self.url = url
        self.space = space
        self.storage = open_storage(url)
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
        decisions = self.space.decode(candidate) if self._decisions else {}
        options = {choice.name: choice.options for choice in self.space.choices}
        ordered = [float(values[o.name]) for o in self._objectives]
        trial = create_trial(
            values=ordered,
            params=decisions,
            distributions={name: CategoricalDistribution(options[name]) for name in decisions},
            user_attrs={"id": candidate.id, "genes": list(candidate.genes), **attributes},
        )
        with failures_of(self.url):
            self.study.add_trial(trial)
        self._remember(candidate.id, ordered, trial.user_attrs)

    def trials(self) -> list[FrozenTrial]:
        """Return all there are now; finished ones are known from here on. Where a candidate was evaluated
        twice, its first values stay.
        """
        with failures_of(self.url):
            trials: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
            for trial in trials:
                described = parse(_Described, trial.user_attrs)
                finished = trial.state == TrialState.COMPLETE and described.id not in self._known
                if finished and all(map(math.isfinite, trial.values)):  # else damaged: it is evaluated again
                    self._remember(described.id, trial.values, trial.user_attrs)
        return trials

    def _remember(self, key: str, ordered: Sequence[float], attributes: Mapping[str, Any]) -> None:
        values = dict(zip((o.name for o in self._objectives), ordered, strict=True))
        self._known[key] = (values, dict(attributes))
