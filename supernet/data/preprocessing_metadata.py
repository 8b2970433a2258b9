"""What ONNX files say of their own preprocessing and classes in their metadata.

Read are ONNX's own names for images (docs/MetadataProps.md of its specification), those of Ultralytics'
exports (`imgsz`, `names`), and the names that preprocessing has in configurations (`image_mean`,
`rescale_factor`), as texts of their own or inside one JSON text.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

from hw_profiles.errors import TrilobitError
from supernet.data.preprocessing import Preprocessing, parse_preprocessing

MOST_TEXT = 200_000  # characters of metadata that are looked at
# field of `Preprocessing` by names that others have for it, without case, `-`, `_` and `.`
_FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("mean", "imagemean", "means", "inputmean", "normalizemean"), "mean"),
    **dict.fromkeys(("std", "imagestd", "stds", "inputstd", "normalizestd"), "std"),
    **dict.fromkeys(("scale", "rescalefactor", "scalefactor"), "scale"),
    **dict.fromkeys(("imgsz", "inputsize", "imagesize", "cropsize"), "size"),
    **dict.fromkeys(("layout", "dataformat"), "layout"),
    **dict.fromkeys(("channels", "colororder", "colourorder", "colormode"), "channels"),
    **dict.fromkeys(("resize", "resizemode"), "resize"),
}
_CONFIGURATIONS = ("preprocess", "preprocessing", "preprocessor", "preprocessorconfig", "transform", "config")
_NAMES = ("names", "classnames", "classes", "labels")
_PIXEL_FORMATS = {"gray8": "grey", "rgb8": "rgb", "bgr8": "bgr", "rgba8": "rgba", "srgb8": "rgb"}
_WORDS = {"channelsfirst": "nchw", "channelslast": "nhwc", "gray": "grey", "l": "grey"}
# nominal range of pixels: scale, mean, deviation
_RANGES = {
    "nominalrange_0_255": ("1", "0", "1"),
    "normalized_0_1": ("1/255", "0", "1"),
    "normalized_1_1": ("1/255", "0.5", "0.5"),
}


def preprocessing_of(metadata: Mapping[str, str]) -> Preprocessing:
    """Return what a file says of its preprocessing; what cannot be understood is left out."""
    said = Preprocessing()
    for name, text in (*_standard(metadata), *_pairs(metadata)):
        try:
            said = said.over(parse_preprocessing({name: _word(text)}))
        except TrilobitError:
            continue  # somebody else's words
    return said


def class_names_of(metadata: Mapping[str, str]) -> list[str] | None:
    """Return the names of classes that a file has, in the order of their labels."""
    for key, text in metadata.items():
        if _plain(key) not in _NAMES:
            continue
        names = _value(text)
        if isinstance(names, str) and "\n" in names:  # a name a line
            names = names.splitlines()
        if isinstance(names, Mapping):
            names = [names.get(place, names.get(str(place))) for place in range(len(names))]
        if isinstance(names, list) and len(names) > 1 and all(isinstance(name, str) for name in names):
            return names
    return None


def _standard(metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what ONNX's own names say."""
    channels = _PIXEL_FORMATS.get(metadata.get("Image.BitmapPixelFormat", "").lower())
    if channels:
        yield "channels", channels
    values = _RANGES.get(metadata.get("Image.NominalPixelRange", "").lower())
    yield from zip(("scale", "mean", "std"), values or (), strict=False)


def _pairs(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in metadata.items():
        name = _plain(key)
        if name in _FIELDS:
            yield _FIELDS[name], _text(value)
        elif name in _CONFIGURATIONS and isinstance(inner := _value(value), Mapping):
            yield from _pairs({str(inner_key): text for inner_key, text in inner.items()})


def _plain(key: str) -> str:
    words = str(key).lower().rpartition(".")[2]
    return "".join(letter for letter in words if letter.isalnum())


def _value(text: Any) -> Any:
    """Return what a text of JSON or of Python's literals says; the text itself where it is neither."""
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        return text
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return text


def _text(value: Any) -> str:
    parsed = _value(value)
    if isinstance(parsed, Mapping):
        parsed = list(parsed.values())  # {"height": 224, "width": 224}
    if isinstance(parsed, list | tuple):
        return ",".join(str(part) for part in parsed[:4])
    return str(parsed)


def _word(text: str) -> str:
    return _WORDS.get(text.lower().replace("_", "").strip(), text)
