"""What a run takes where nothing is said: by its data, and by the checkpoint that it starts from.

Everything filled in here stands in the run's `run.toml`, and the command says it in one line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hw_profiles.errors import TrilobitError
from supernet.formats.loading import load_format
from supernet.tasks.metric import BITS_PER_BYTE
from supernet.train.config import FOR_RANDOM_WEIGHTS, HOST_ONLY, NONE
from supernet.zoo import PREFIX, is_shipped

Document = Mapping[str, Any]


@dataclass(frozen=True)
class DataDefaults:
    """What fits one kind of data.

    Attributes:
        supernets: names of shipped supernets which were trained on it, by their space; the first space whose
            supernet is there is the usual one.
        teacher: the one of them whose blocks those of a designed space can imitate.
        augmentation: how its images are changed in training, keys of `[train]`.
        quantized_epochs: of the quantized phase, where formats need one.
    """

    supernets: Mapping[str, str]
    teacher: str
    augmentation: Mapping[str, Any]
    quantized_epochs: float

    @property
    def space(self) -> str:
        """The space that it is searched in where nothing is said."""
        shipped = (space for space, name in self.supernets.items() if is_shipped(name))
        return next(shipped, next(iter(self.supernets)))

    def supernet_of(self, space: object) -> str:
        """Return the name of the supernet of a space that is there; empty where there is none."""
        name = self.supernets.get(str(space), "")
        return name if is_shipped(name) else ""


CALIBRATED_ERROR = 3e-4  # relative squared error of weights that calibration alone can bear: int8's is 4e-5
QUANTIZED_EPOCHS = 4.0  # of a small data set
# the space for images of another source, by the shorter side that they have at least: the spaces' networks
# look at up to 28, 32 and 224 pixels, and between two of them the one that changes the images less is taken
BY_SIDE: Sequence[tuple[int, str]] = ((85, "ofa-mbv3"), (29, "cifar-pooled"))
BY_DATA: Mapping[str, DataDefaults] = {
    "cifar10": DataDefaults(
        {"cifar-pooled": "cifar-pooled", "cifar-mbconv": "cifar-mbconv"},
        teacher="cifar-mbconv",
        augmentation={"pad": 4, "flip": True},
        quantized_epochs=1.0,
    ),
}
# the space for text: encoders answer for each token or each text, decoders for the byte that follows
SPACES_OF_TEXT: Mapping[str, str] = {
    "python-tokens": "token-encoder",
    "csv": "text-encoder",
    "python-bytes": "text-decoder",
    "text": "text-decoder",
}
# what is searched for, where the data's main metric is not accuracy
OBJECTIVES_BY_DATA: Mapping[str, tuple[str, ...]] = {
    kind: (BITS_PER_BYTE.name, "latency", "size") for kind in ("python-bytes", "text")
}


def with_defaults(document: Document) -> tuple[dict[str, Any], str]:
    """Return a configuration (plain data, as TOML gives it) with what it leaves open, and a line that says
    what was filled in; empty where nothing was.

    A checkpoint to start from (`train.init`) decides the space, and makes settings for random weights
    pointless; else the data does. The space's shipped supernet is used as it is, if it knows this data and
    the configuration does not say how to train.

    Raises:
        TrilobitError: the checkpoint to start from cannot be read.
    """
    names = ("data", "train", "space", "search")
    if not all(isinstance(document.get(name, {}), Mapping) for name in names):
        return dict(document), ""  # no configuration: whoever parses it says so
    data, train, space, search = (dict(document.get(name, {})) for name in names)
    source = str(data.get("source", "")).partition(":")[0]
    sought, defaults = OBJECTIVES_BY_DATA.get(source, ()), BY_DATA.get(source)
    notes = []
    if "name" not in space:
        usual = defaults.space if defaults else SPACES_OF_TEXT.get(source, "")
        name, why = _space_of(train.get("init", NONE)) or usual, ""
        if not name:
            name, why = _space_for_images(str(data.get("source", "")))
        if name:
            space["name"] = name
            notes.append(f"space {name}{why}")
    if pointless := _for_random_weights(train):
        train |= pointless
        notes.append(
            f"{' and '.join(f'train.{name}' for name in pointless)} left out, for --init gives weights"
        )
    supernet = defaults.supernet_of(space.get("name")) if defaults else ""
    if supernet and set(train) <= set(HOST_ONLY):
        train |= {"init": PREFIX + supernet, "epochs": 0}
        notes.append("the shipped supernet as it is (--init none trains from scratch)")
    if defaults and (
        more := {name: value for name, value in defaults.augmentation.items() if name not in train}
    ):
        train |= more
        notes.append(", ".join(f"train.{name} {value}" for name, value in more.items()))
    if sought and "objectives" not in search:
        search["objectives"] = sought
        notes.append(f"objectives {', '.join(sought)}")
    quantized = {}
    if "quantized" not in document and _narrow(space.get("formats", ())):
        quantized["epochs"] = defaults.quantized_epochs if defaults else QUANTIZED_EPOCHS
        notes.append(f"a quantized phase of {quantized['epochs']:g} epochs for the formats that need it")
    sections = {"train": train, "space": space, "search": search, "quantized": quantized}
    filled = {**document, **{name: section for name, section in sections.items() if section}}
    return filled, f"where nothing was said: {', '.join(notes)}" if notes else ""


def _for_random_weights(train: Document) -> dict[str, Any]:
    """Return the defaults of what a configuration wants done with random weights, where it names others."""
    if train.get("init", NONE) == NONE:
        return {}
    return {name: usual for name, usual in FOR_RANDOM_WEIGHTS.items() if train.get(name, usual) != usual}


def _space_for_images(source: str) -> tuple[str, str]:
    """Return the space that fits a source's images, and why in words; empty where the source, or its images,
    leave it at the usual one.
    """
    if not source.startswith("imagefolder:"):
        return "", ""
    from supernet.tasks.image_sources import image_shape  # torch: only where a file is read

    try:
        shape = image_shape(source)
    except (TrilobitError, OSError):
        return "", ""  # no such images: whoever loads them says so
    for side, name in BY_SIDE:
        if shape and min(shape) >= side:
            return name, f" for images of {shape[1]} x {shape[0]} pixels"
    return "", ""


def _narrow(formats: Sequence[str]) -> bool:
    """Return whether some of the formats round weights to fewer bits than calibration alone can bear."""
    errors = (load_format(fmt.partition("/")[0]).weight.relative_error for fmt in formats)
    return any(error > CALIBRATED_ERROR for error in errors)


def _space_of(init: object) -> str:
    """Return the name of the space of the checkpoint to start from; empty where it is not known."""
    if init == NONE:
        return ""
    from supernet.train.checkpoint import load_weights  # torch: only where a file is read
    from supernet.train.initial import weights_path

    return load_weights(weights_path(str(init))).space
