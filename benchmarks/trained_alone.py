"""One architecture trained by itself, by the recipe of a supernet and for as many passes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hw_profiles.errors import TrilobitError
from hw_profiles.graph.builder import GraphBuilder
from hw_profiles.graph.layer import Layer
from nas.run.reporting import Reporter, progress_bar
from nas.run.run import Run
from supernet.derive.choosing import Choose
from supernet.families.family import Family
from supernet.space.space import Candidate, Choice, Option, SearchSpace
from supernet.tasks.task import Task
from supernet.train.checkpoint import load_checkpoint
from supernet.train.config import TrainConfig
from supernet.train.loop import load_supernet, steps_per_epoch, train
from supernet.train.malloc import keep_freed_memory
from supernet.train.sampling import ALL_ALONG


@dataclass(frozen=True)
class Alone(Family):
    """A family of which one architecture is left: its weights have that network's shapes and no more. Number
    formats stay open, and so are resolutions below its own, for recipes that begin with small images.

    Attributes:
        name: of the family, and which of its networks.
        family: that the architecture is from.
        candidate: its largest network.
    """

    name: str
    in_channels: int
    classes: int
    formats: tuple[str, ...]
    family: Family
    candidate: Candidate

    @classmethod
    def of(cls, family: Family, candidate: Candidate) -> "Alone":
        """Return what is left of `family` when `candidate` is its largest network."""
        name = f"{family.name}-{candidate.id}"
        return cls(name, family.in_channels, family.classes, family.formats, family, candidate)

    def choices(self) -> Sequence[Choice]:
        """Return what is open, and the option of all else."""
        space = self.family.space()
        chosen = space.decode(self.candidate)
        return [self._left_of(space, choice, chosen) for choice in space.choices if choice.name in chosen]

    def _left_of(self, space: SearchSpace, choice: Choice, chosen: Mapping[str, Option]) -> Choice:
        """Return a choice with the options that are left, under what conditions on formats it had."""
        options: tuple[Option, ...] = (chosen[choice.name],)
        if choice.kind == "precision":
            options = choice.options
        elif choice.role in ALL_ALONG:
            largest = int(chosen[choice.name])
            options = tuple(option for option in choice.options if int(option) <= largest)
        kinds = {parent: space.choices[space.columns[parent]].kind for parent, _ in choice.active_if}
        conditions = tuple(pair for pair in choice.active_if if kinds[pair[0]] == "precision")
        return replace(choice, options=options, active_if=conditions)

    def build(self, net: GraphBuilder, choose: Choose) -> None:
        self.family.build(net, choose)

    def input_size(self, choose: Choose) -> int:
        return self.family.input_size(choose)

    def elastic_layer(self, name: str, specs: Sequence[Layer]) -> nn.Module:
        return self.family.elastic_layer(name, specs)

    def module_path(self, name: str) -> str:
        return self.family.module_path(name)

    def uniform(self, choice: Choice, fmt: str) -> int:
        return self.family.uniform(choice, fmt)


def recipe(run: Run) -> TrainConfig:
    """Return the recipe of a run's supernet for one network: as many passes over the images as its training
    had, with what its budget decided, and no network but the largest.

    Raises:
        TrilobitError: nothing was trained there, or there is no checkpoint of that.
    """
    if not run.config.train.epochs:
        raise TrilobitError(
            f"{run.folder}: uses the weights of {run.config.train.init} as they are, which no recipe of its "
            "own has made; give the folder in which they were trained"
        )
    config = replace(run.config.train, budget="", schedule="largest", evaluate_every=0)
    if not run.config.train.budget:
        return config
    state = load_checkpoint(run.checkpoint_path, fingerprint=run.family.space().fingerprint)
    changes = {
        name: value
        for name, value in state["plan"]["changes"].items()
        if name not in ("schedule", "random_subnets", "alone")
    }
    passes = max(1, round(state["steps"] / steps_per_epoch(run.task, run.config.train)))
    return replace(config, epochs=passes, **changes)


def train_alone(
    family: Family,
    task: Task,
    config: TrainConfig,
    path: Path,
    *,
    seed: int,
    name: str,
    reporter: Reporter,
    stop: Callable[[], bool] = lambda: False,
) -> nn.Module:
    """Train the largest network of `family`, or go on, or find in `path` that it is trained.

    Raises:
        KeyboardInterrupt: `stop` said so; what was computed is saved.
    """
    keep_freed_memory()
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar(reporter, name, config.epochs * steps_per_epoch(task, config)) as update:
        for progress in train(family, task, config, path, seed=seed, stop=stop):
            update(progress.step, f"loss {progress.loss:.3f}")
    if stop():
        raise KeyboardInterrupt
    return load_supernet(family, path)
