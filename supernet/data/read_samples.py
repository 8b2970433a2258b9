"""Reads samples of what a network reads: images, arrays, or what a function of the user gives."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hw_profiles.errors import TrilobitError
from supernet.data.array_files import SUFFIXES, read_arrays
from supernet.data.array_samples import array_samples, fixed_array, sample_rows
from supernet.data.function_samples import read_function
from supernet.data.image_samples import read_images
from supernet.data.input_spec import InputSpec
from supernet.data.preprocessing import Preprocessing
from supernet.data.preprocessing_metadata import class_names_of, preprocessing_of
from supernet.data.samples import Samples
from supernet.data.user_function import is_function_name

LEAST, MOST = 8, 12_000  # samples that there must be, and that are read
NO_LABELS = "none"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2")
AS_THE_FILE_SAYS = Preprocessing()


def read_samples(
    source: str,
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing = AS_THE_FILE_SAYS,
    *,
    metadata: Mapping[str, str] | None = None,
    labels: str | None = None,
    most: int = MOST,
) -> Samples:
    """Return the samples that `source` names.

    Args:
        source: a folder or an archive of images; a `.npy` or `.npz` with an array per input; or
            `module:function`.
        inputs: what the network reads; where the samples agree they decide about open dimensions.
        preprocessing: of images, as far as the user says it.
        metadata: of the network's file, which may say the rest.
        labels: a file with the name of a class a line, in the order in which labels count them; `none` leaves
            labels out; None takes the folders in alphabetical order.
        most: samples that are read; of more evenly chosen ones.

    Raises:
        TrilobitError: nothing there, data of another shape or type than the network reads, or fewer than
            `LEAST` different samples.
    """
    if not inputs:
        raise TrilobitError("this network reads nothing: it has no inputs that samples could be given to")
    samples = _at_most(most, _read(source, inputs, preprocessing, metadata or {}, labels, most))
    if labels == NO_LABELS:
        samples = replace(samples, labels=None, classes=())
    _require_usable(source, samples)
    return samples


def _at_most(most: int, samples: Samples) -> Samples:
    """Return at most so many samples, evenly chosen ones."""
    count = len(samples)
    if count <= most:
        return samples
    rows = np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
    return replace(samples[rows], origin=f"{len(rows):,} of {samples.origin}")


def _read(
    source: str,
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing,
    metadata: Mapping[str, str],
    labels: str | None,
    most: int,
) -> Samples:
    path = Path(source)
    arrays = path.suffix.lower() in SUFFIXES
    if arrays or (is_function_name(source) and not path.exists()):
        if preprocessing.said:
            raise TrilobitError(
                f"{source}: --{preprocessing.said[0]} is for images; arrays are given to the network as "
                "they are"
            )
        if arrays:
            return array_samples(source, read_arrays(path), inputs)
        return read_function(source, inputs, most=most)
    _require_images(path)
    free = [spec for spec in inputs if spec.fixed is None]
    stated = preprocessing_of(metadata)
    names = _class_names(labels) if labels not in (None, NO_LABELS) else class_names_of(metadata)
    samples = read_images(path, free, preprocessing, stated, class_names=names, most=most)
    return _with_fixed(samples, inputs)


def _with_fixed(samples: Samples, inputs: Sequence[InputSpec]) -> Samples:
    """Return samples with the value of inputs that always have the same."""
    arrays = dict(samples.inputs)
    for spec in inputs:
        if spec.fixed is not None:
            rows = sample_rows("--fix", fixed_array(spec), spec).values
            arrays[spec.name] = np.broadcast_to(rows, (len(samples), *rows.shape[1:]))
    return replace(samples, inputs={spec.name: arrays[spec.name] for spec in inputs})


def _require_images(path: Path) -> None:
    """Raise unless a path can be a folder or an archive of images.

    Raises:
        TrilobitError: it is a file of another kind.
    """
    if path.is_file() and not path.name.lower().endswith(ARCHIVES) and not zipfile.is_zipfile(path):
        raise TrilobitError(
            f"{path}: samples are a folder or an archive ({', '.join(ARCHIVES)}) of images, a .npy or .npz "
            "file with an array per input, or module:function; this is none of them"
        )


def _class_names(path: str | None) -> list[str]:
    try:
        lines = Path(path or "").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise TrilobitError(
            f"--labels {path}: {reason}; give a file with a class name a line, or none"
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) < len(names) or len(names) < 2:
        raise TrilobitError(
            f"--labels {path}: {len(names)} names; at least two different ones are needed, none twice"
        )
    return names


def _require_usable(source: str, samples: Samples) -> None:
    if len(samples) < LEAST:
        plural = "s" * (len(samples) != 1)
        raise TrilobitError(
            f"{source}: {len(samples)} sample{plural}; at least {LEAST} are needed, better some hundreds: "
            "they are divided into some to calibrate on, to choose by and to judge by"
        )
    if all((array == array[:1]).all() for array in samples.inputs.values()):
        only = next(iter(samples.inputs.values()))[0]
        values = f", all {only.flat[0]}" if only.size and (only == only.flat[0]).all() else ""
        raise TrilobitError(
            f"{source}: all {len(samples)} samples are the same{values}; ranges and "
            "agreement would mean nothing"
        )


def sample_shapes(samples: Samples) -> dict[str, tuple[int, ...]]:
    """Return the shape of what the network reads for one sample, by input: what open dimensions are
    bound to.
    """
    return {name: np.shape(array)[1:] for name, array in samples.inputs.items()}
