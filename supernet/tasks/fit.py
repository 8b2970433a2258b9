"""Whether networks of a space can read a task's data."""

from hw_profiles.errors import TrilobitError
from supernet.families.family import Family
from supernet.tasks.task import Task, answers, reads, tokens_of

_ONE = {"examples": "each example", "tokens": "each token"}


def require_readable(task: Task, family: Family) -> None:
    """Raise where a family's networks read something else than a task gives.

    Raises:
        TrilobitError: names both.
    """
    if family.reads != reads(task):
        raise TrilobitError(
            f"space {family.name} is of networks that read {family.reads}, and {task.name} is {reads(task)}; "
            "choose another space (--space; `nas spaces` lists them) or other data (--data)"
        )
    if family.answers != answers(task):
        raise TrilobitError(
            f"space {family.name} is of networks that answer for {_ONE[family.answers]}, and {task.name} "
            f"asks for {_ONE[answers(task)]}; choose another space (--space; `nas spaces` lists them) or "
            "other data (--data)"
        )
    length, longest = tokens_of(task), family.resolution(family.extreme("largest", family.formats[0]))
    if length and longest > length:
        raise TrilobitError(
            f"space {family.name} has networks that read {longest} tokens, and examples of {task.name} have "
            f"{length}; say length={longest} behind the ? of --data"
        )
