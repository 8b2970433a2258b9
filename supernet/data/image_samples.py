"""Images of a folder or archive, flat or in a folder per class, as samples of a network's input."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from hw_profiles.errors import TrilobitError, did_you_mean, shown
from supernet.data.archives import file_names, is_plain, read_files
from supernet.data.image_files import SUFFIXES, decode_image, image_size
from supernet.data.image_input import ImageInput, described, image_input, usable
from supernet.data.input_spec import InputSpec
from supernet.data.preprocessing import Preprocessing
from supernet.data.samples import Samples

Array = NDArray[np.generic]
MOST_UNREADABLE = 0.1  # share of images that may be broken before the whole is refused
TRAINING_PART, JUDGED_PARTS = "train", ("test", "val", "validation")  # folders of published data sets
MOST_OF_TRAINING = 2_048  # images of a training part that lies beside a part to judge by


@dataclass(frozen=True)
class Labelled:
    """Right answers by class folders.

    Attributes:
        labels: by path of the file.
        classes: names that labels count.
        note: what was done, or why nothing.
    """

    labels: Mapping[str, int]
    classes: tuple[str, ...] = ()
    note: str = ""


def read_images(
    path: Path,
    specs: Sequence[InputSpec],
    given: Preprocessing,
    stated: Preprocessing,
    *,
    class_names: Sequence[str] | None,
    most: int,
) -> Samples:
    """Return at most `most` images, evenly chosen by path, as the only input of a network reads them.

    Args:
        given, stated: preprocessing that the user says, and that the network's file says.
        class_names: names of the classes in the order of their labels; folders are matched with them. None
            takes the folders themselves in alphabetical order.

    Raises:
        TrilobitError: no images, no input for them, or more than a tenth of them broken.
    """
    if len(specs) != 1:
        listed = ", ".join(map(str, specs))
        raise TrilobitError(
            f"{path}: images feed one input, and this network has {len(specs)}: {listed}; give .npz with an "
            "array per input"
        )
    stated = usable(specs[0], given, stated)
    made = image_input(specs[0], given, stated)
    names = chosen_files(file_names(path, _is_image), most)
    if not names:
        raise TrilobitError(f"{path}: no images ({', '.join(SUFFIXES)}) in it")
    made = _with_size(path, names, made)
    array, broken = _decoded(path, names, made)
    _require_most_readable(path, list(broken.values()), len(names))
    kept = [name for name in names if name not in broken]
    labelled = labels_by_folder(kept, class_names)
    labels = np.array([labelled.labels[name] for name in kept], np.int64) if labelled.labels else None
    notes = (f"{len(kept):,} images", labelled.note, f"{len(broken)} unreadable" if broken else "")
    counted = ", ".join(note for note in notes if note)
    return Samples(
        {made.spec.name: array},
        labels,
        tuple(kept),
        labelled.classes,
        f"{counted}; {described(made, given, stated)}",
    )


def _is_image(name: str) -> bool:
    return is_plain(name) and PurePosixPath(name).suffix.lower() in SUFFIXES


def chosen_files(names: Sequence[str], most: int) -> list[str]:
    """Return at most `most` paths, sorted and evenly spread; where one part of a published data set is there
    to train and another to judge by, few of the first.
    """
    ordered = sorted(names)
    training = [name for name in ordered if TRAINING_PART in PurePosixPath(name).parts[:-1]]
    judged = [name for name in ordered if is_judged(name)]
    if training and judged:
        few = _spread(training, min(MOST_OF_TRAINING, most // 2))
        return sorted([*few, *_spread(judged, most - len(few))])
    return _spread(ordered, most)


def is_judged(name: str) -> bool:
    """Return whether a file lies in a part of a published data set that networks are judged by."""
    return any(part in JUDGED_PARTS for part in PurePosixPath(name).parts[:-1])


def _spread(names: Sequence[str], most: int) -> list[str]:
    rows = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int))
    return [names[row] for row in rows]


def _with_size(path: Path, names: Sequence[str], made: ImageInput) -> ImageInput:
    """Return the input with its height and width, taken from the images where they are open.

    Raises:
        TrilobitError: both are open and the images are of several sizes.
    """
    if made.height and made.width:
        return made
    sizes = _sizes(path, set(names))
    if len(sizes) == 1:
        height, width = next(iter(sizes))
        return made.sized(made.height or height, made.width or width)
    if made.height or made.width:
        ratios = [width / height for height, width in sizes]
        return made.padded_to(max(ratios) if made.height else min(ratios))
    smallest, largest = min(sizes), max(sizes)
    raise TrilobitError(
        f"{path}: images of {len(sizes)} sizes, {smallest[1]}x{smallest[0]} to {largest[1]}x{largest[0]}, "
        f"and input {made.spec} leaves height and width open; give them, such as --shape {made.spec.name}="
        f"{'1x3x224x224' if made.how.layout == 'nchw' else '1x224x224x3'}"
    )


def _sizes(path: Path, names: set[str]) -> set[tuple[int, int]]:
    """Return the heights and widths of the images that can be read."""
    sizes = set()
    for name, data in read_files(path, names.__contains__):
        with suppress(TrilobitError):  # told of when it is decoded
            sizes.add(image_size(data, name))
    if not sizes:
        raise TrilobitError(f"{path}: none of its {len(names)} images can be read; is it whole?")
    return sizes


def _decoded(path: Path, names: Sequence[str], made: ImageInput) -> tuple[Array, Mapping[str, TrilobitError]]:
    """Return images (n, ...) as the network reads them in the order of `names`, and by name what is wrong
    with those that are left out.
    """
    rows = {name: row for row, name in enumerate(names)}
    array = np.empty((len(names), *made.shape), made.spec.dtype)
    broken = dict[str, TrilobitError]()
    for name, data in read_files(path, rows.__contains__):
        try:
            array[rows[name]] = made.read(decode_image(data, f"{path}: {name}"))
        except TrilobitError as error:
            broken[name] = error
    kept = [row for name, row in rows.items() if name not in broken]
    return (array if not broken else array[kept]), broken


def _require_most_readable(path: Path, broken: Sequence[TrilobitError], count: int) -> None:
    if len(broken) > MOST_UNREADABLE * count:
        raise TrilobitError(f"{path}: {len(broken)} of {count} images cannot be read, the first: {broken[0]}")


def labels_by_folder(names: Sequence[str], class_names: Sequence[str] | None) -> Labelled:
    """Return right answers by the folder that each file lies in; none where all lie in one.

    Raises:
        TrilobitError: a folder that is none of `class_names`.
    """
    folders = {name: PurePosixPath(name).parent.name for name in names}
    present = sorted(set(folders.values()))
    if len(present) < 2 or set(present) & {TRAINING_PART, *JUDGED_PARTS}:
        return Labelled({})
    classes = tuple(class_names or present)
    if strange := [folder for folder in present if folder not in classes]:
        raise TrilobitError(
            f"folder {shown(strange[0])} is none of the {len(classes)} class names"
            f"{did_you_mean(strange[0], classes)}; rename it, or give --labels a file with a name a "
            "line, or none"
        )
    order = "as in the list of names" if class_names else "in alphabetical order"
    note = f"labels by {len(present)} class folders {order}"
    return Labelled({name: classes.index(folder) for name, folder in folders.items()}, classes, note)
