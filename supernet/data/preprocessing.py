"""`Preprocessing`: how images become numbers, as far as somebody said; and the text that says it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from hw_profiles.errors import TrilobitError, did_you_mean, shown

Layout = Literal["nchw", "nhwc"]
Resize = Literal["stretch", "crop", "pad"]
Colour = Literal["rgb", "bgr", "grey", "rgba"]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to the pixels 0..255 of an image; None where it is not said.

    Attributes:
        mean, std: of each channel, or one number for all, of scaled pixels: subtracted, and divided by.
        scale: that pixels are multiplied with first: 1 for 0..255, 1/255 for 0..1.
        layout: whether channels come before rows and columns.
        resize: `stretch` changes proportions; `crop` covers the input and cuts off the rest; `pad` fits into
            it and fills the rest.
        cover: share of the side of a cropped image that is kept: .875 for 224 of 256.
        channels: their order; `grey` is a single one.
        size: height and width, where the network leaves them open.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    layout: Layout | None = None
    resize: Resize | None = None
    cover: float | None = None
    channels: Colour | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Raise unless every value can mean something.

        Raises:
            TrilobitError: no number, a deviation or scale of 0 or less, or an unknown word.
        """
        if any(deviation <= 0 for deviation in self.std or ()):
            raise TrilobitError(f"std {numbers_text(self.std or ())}: deviations are above 0")
        for name in ("scale", "cover"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise TrilobitError(f"{name} {value:g}: above 0, such as 1/255")
        if self.cover is not None and self.cover > 1:
            raise TrilobitError(f"crop:{self.cover:g}: a share of the image's side, at most 1, such as .875")
        if self.size is not None and not all(0 < side <= 16_384 for side in self.size):
            raise TrilobitError(f"size {self.size}: height and width are between 1 and 16384 pixels")

    def over(self, other: "Preprocessing") -> "Preprocessing":
        """Return this one, with what it does not say taken from `other`."""
        return Preprocessing(
            **{
                field.name: getattr(other, field.name) if (own := getattr(self, field.name)) is None else own
                for field in fields(self)
            }
        )

    @property
    def said(self) -> tuple[str, ...]:
        """Names of what is said."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)


def parse_preprocessing(texts: Mapping[str, str]) -> Preprocessing:
    """Return what texts by field say.

    >>> parse_preprocessing({"mean": ".485,.456,.406", "scale": "1/255", "resize": "crop:.875"})
    Preprocessing(mean=(0.485, 0.456, 0.406), std=None, scale=0.00392156862745098, layout=None, \
resize='crop', cover=0.875, channels=None, size=None)

    Raises:
        TrilobitError: a field that there is not, or a text that it cannot be.
    """
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in _PARSERS:
            known = ", ".join(_PARSERS)
            raise TrilobitError(
                f"unknown preprocessing {shown(name)}; known: {known}{did_you_mean(name, _PARSERS)}"
            )
        values |= _PARSERS[name](name, text.strip().lower())
    return Preprocessing(**values)


def numbers_text(values: tuple[float, ...]) -> str:
    """Return numbers as they are written.

    >>> numbers_text((0.5, 0.25))
    '0.5,0.25'
    """
    return ",".join(f"{value:g}" for value in values)


def _numbers(name: str, text: str) -> dict[str, Any]:
    parts = [part for part in text.strip("[]()").replace(" ", ",").split(",") if part]
    values = tuple(_number(name, part) for part in parts)
    if len(values) not in (1, 3, 4):
        raise TrilobitError(f"{name} {shown(text)}: one number per channel, such as .485,.456,.406")
    return {name: values}


def _number(name: str, text: str) -> float:
    above, _, below = text.partition("/")
    try:
        value = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if not abs(value) < 1e9:
        raise TrilobitError(f"{name} {shown(text)}: not a number; write one, such as 0.5 or 1/255")
    return value


def _scale(name: str, text: str) -> dict[str, Any]:
    return {name: 1.0 if text == "raw" else _number(name, text)}


def _word(allowed: Any) -> Any:
    words = get_args(allowed)

    def parse(name: str, text: str) -> dict[str, Any]:
        if text not in words:
            raise TrilobitError(f"{name} {shown(text)}: one of {', '.join(words)}{did_you_mean(text, words)}")
        return {name: text}

    return parse


def _resize(name: str, text: str) -> dict[str, Any]:
    word, _, cover = text.partition(":")
    values = dict(_word(Resize)(name, word))
    if not cover:
        return values
    if word != "crop":
        raise TrilobitError(f"{name} {shown(text)}: only crop takes a share, as in crop:.875")
    return {**values, "cover": _number(name, cover)}


def _size(name: str, text: str) -> dict[str, Any]:
    sides = text.replace(",", "x").strip("[]() ").split("x")
    if len(sides) not in (1, 2) or not all(
        side.strip().isascii() and side.strip().isdigit() for side in sides
    ):
        raise TrilobitError(f"{name} {shown(text)}: height and width in pixels, such as 224x224")
    pixels = [int(side[:9]) for side in map(str.strip, sides)]
    return {name: (pixels[0], pixels[-1])}


_PARSERS = {
    "mean": _numbers,
    "std": _numbers,
    "scale": _scale,
    "layout": _word(Layout),
    "resize": _resize,
    "channels": lambda name, text: _word(Colour)(name, text.replace("gray", "grey")),
    "size": _size,
}
