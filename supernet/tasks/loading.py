"""From the name of data to a task: a registry of readers, open to third parties by `trilobit.data`."""

from pathlib import Path
from typing import Protocol

from hw_profiles.errors import TrilobitError
from hw_profiles.registry import load, names
from supernet.registry import DATA, SOURCE_FORMS, SOURCES
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.task import Task


class ReadData(Protocol):
    """How every registered reader is called."""

    def __call__(self, argument: str, *, seed: int, cache: Path | None) -> Task:
        """Return the task that `argument`, what follows the reader's name and a colon, names; `seed` decides
        which examples go to which part, decoded archives may be kept in the folder `cache`.
        """
        ...


def load_data(source: str, *, seed: int, cache: Path | None = None) -> Task:
    """Return the task whose data `source` names, split by `seed`.

    Args:
        source: `NAME` or `NAME:ARGUMENT` of a registered reader: `digits` (1,797 real scans),
            `imagefolder:PATH[?size=N]` (a folder, tar or zip of class folders), `cifar10:PATH` (the published
            binary archive, or the folder that holds or receives it; any other folder or archive of images is
            read like `imagefolder`), `python-tokens` and `python-bytes` (source of the standard library, the
            class of every byte or the next byte), `text:PATH` (a file or folder), `csv:PATH` (texts of
            classes), or a plug-in's.
        seed: decides which examples go to which part.
        cache: folder in which decoded archives are kept; None decodes every time.

    Raises:
        TrilobitError: an unknown source, a missing or broken file, or too little in it.
    """
    name, _, argument = source.partition(":")
    if name not in SOURCES and name not in names(DATA, SOURCES):
        source_forms = [
            SOURCE_FORMS.get(registered, f"{registered}:...") for registered in names(DATA, SOURCES)
        ]
        raise TrilobitError(f"unknown data source {source!r}; known: {', '.join(source_forms)}")
    read: ReadData = load(DATA, SOURCES, name)
    return read(argument, seed=seed, cache=cache)


def load_images(source: str, *, seed: int, cache: Path | None = None) -> ImageClassification:
    """Return the images that `source` names, see `load_data`.

    Raises:
        TrilobitError: as `load_data`, or the task is another one.
    """
    return require_images(load_data(source, seed=seed, cache=cache))


def require_images(task: Task) -> ImageClassification:
    """Return a task of images, as what exports and verifies networks needs it.

    Raises:
        TrilobitError: the task is another one.
    """
    if not isinstance(task, ImageClassification):
        raise TrilobitError(
            f"{task.name}: images of classes are needed here, not {type(task).__name__}; `nas run` and "
            "its stages work with any task"
        )
    return task
