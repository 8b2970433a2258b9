"""Whether networks of a space can read a task's data, and say what it asks for."""

from typing import get_type_hints

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import load, names
from supernet.data.kinds import ANSWERS
from supernet.families.family import Family, load_family
from supernet.registry import DATA, FAMILIES, SOURCES
from supernet.tasks.task import Task, answers, reads, tokens_of

SPACES = "trilobit.spaces"


def require_readable(task: Task, family: Family) -> None:
    """Raise where a family's networks read, or say, something else than a task gives, and asks for.

    Raises:
        TrilobitError: names both, and what fits either.
    """
    if (family.reads, family.answers) != (reads(task), answers(task)):
        raise TrilobitError(_misfit(task, family))
    length, longest = tokens_of(task), family.resolution(family.extreme("largest", family.formats[0]))
    if length and longest > length:
        raise TrilobitError(
            f"space {family.name} has networks that read {longest} tokens, and examples of {task.name} have "
            f"{length}; say length={longest} behind the ? of --data"
        )


def _misfit(task: Task, family: Family) -> str:
    if family.reads != reads(task):
        why = f"read {family.reads}, and {task.name} is {reads(task)}"
    else:
        why = f"say {ANSWERS[family.answers]}, and {task.name} asks for {ANSWERS[answers(task)]}"
    spaces, data = fitting_spaces(task), fitting_data(family)
    remedies = [
        f"--space {' or '.join(spaces)}" if spaces else "",
        f"--data {' or '.join(data)}" if data else "",
    ]
    remedy = "; take " + ", or ".join(filter(None, remedies)) if any(remedies) else ""
    return f"space {family.name} is of networks that {why}{remedy}"


def fitting_spaces(task: Task) -> list[str]:
    """Return the names of the spaces whose networks read a task's data and say what it asks for."""
    fitting = []
    for name in names(SPACES, FAMILIES):
        try:
            family = load_family(name, in_channels=task.channels, classes=len(task.classes))
        except TrilobitError:  # of a plug-in that lacks an engine, or wants other data
            continue
        if (family.reads, family.answers) == (reads(task), answers(task)):
            fitting.append(name)
    return fitting


def fitting_data(family: Family) -> list[str]:
    """Return the names of the readers whose data a family's networks read and answer: by the type that each
    says it returns; of those that say `Task` alone nothing is known.
    """
    fitting = []
    for name in names(DATA, SOURCES):
        made = get_type_hints(load(DATA, SOURCES, name)).get("return", Task)
        if made is not Task and (family.reads, family.answers) == (reads(made), answers(made)):
            fitting.append(name)
    return fitting
