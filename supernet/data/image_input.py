"""`ImageInput`: one input of a network that reads images, with everything decided of how they become it."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hw_profiles.errors import TrilobitError
from supernet.data.input_spec import Dimension, InputSpec, shape_text
from supernet.data.preprocessing import Layout, Preprocessing, numbers_text

CHANNELS = {"grey": 1, "rgb": 3, "bgr": 3, "rgba": 4}
PIXELS = 255.0
_MODES = {"grey": "L", "rgb": "RGB", "bgr": "RGB", "rgba": "RGBA"}
_LETTERBOX = 114  # grey of what `pad` adds where no mean says better: what detectors were trained with
_STEP = 32  # pixels that an open side is rounded up to where images of several sizes share it
_FILTER = Image.Resampling.BILINEAR  # with antialiasing, as torchvision's


@dataclass(frozen=True)
class ImageInput:
    """How images become what an input reads.

    Attributes:
        spec: of the input; height and width may be open.
        how: every field but `cover` and `size` said.
        height, width: in pixels; 0 where it is open and nothing says it.
        left: whether what `pad` adds comes after the image, as behind a line of text, not around it.
    """

    spec: InputSpec
    how: Preprocessing
    height: int
    width: int
    left: bool = False

    def sized(self, height: int, width: int) -> "ImageInput":
        """Return the same for images of a certain size."""
        return replace(self, height=height, width=width)

    def padded_to(self, ratio: float) -> "ImageInput":
        """Return the same with the one side that is open long enough for images up to `ratio` times as wide
        as they are high, or down to it; what is missing to narrower ones is added behind them.
        """
        height = self.height or _rounded_up(self.width / ratio)
        width = self.width or _rounded_up(self.height * ratio)
        how = replace(self.how, resize="pad")
        return replace(self, height=height, width=width, how=how, left=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image as the network reads it, a batch of one included where it has a batch."""
        channels = CHANNELS[self.how.channels or "rgb"]
        sides = self.height, self.width
        image = (channels, *sides) if self.how.layout == "nchw" else (*sides, channels)
        return (1, *image) if len(self.spec.shape) == 4 else image

    def read(self, image: Image.Image) -> NDArray[np.generic]:
        """Return an image as the network reads it, of `shape` and the input's type."""
        colour = self.how.channels or "rgb"
        fitted = self._fitted(image.convert(_MODES[colour]))
        pixels = np.asarray(fitted, np.uint8).reshape(self.height, self.width, -1)
        if colour == "bgr":
            pixels = pixels[..., ::-1]
        values = self._scaled(pixels)
        if self.how.layout == "nchw":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, self.spec.dtype).reshape(self.shape)

    def _scaled(self, pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
        if not np.issubdtype(np.dtype(self.spec.dtype), np.floating):
            return pixels
        values = pixels.astype(np.float32) * np.float32(self.how.scale or 1.0)
        mean, std = (np.asarray(numbers, np.float32) for numbers in (self.how.mean, self.how.std))
        return np.asarray((values - mean) / std, np.float32)

    def _fitted(self, image: Image.Image) -> Image.Image:
        size = self.width, self.height
        if image.size == size:
            return image
        if self.how.resize == "stretch":
            return image.resize(size, _FILTER)
        if self.how.resize == "pad":
            centre = (0.0, 0.0) if self.left else (0.5, 0.5)
            return ImageOps.pad(image, size, _FILTER, color=self._fill(image.mode), centering=centre)
        bleed = (1 - (self.how.cover or 1.0)) / 2  # what is cut off each side besides
        return ImageOps.fit(image, size, _FILTER, bleed=min(bleed, 0.49))

    def _fill(self, mode: str) -> int | tuple[int, ...]:
        """Return the colour of what is added: the mean, which becomes 0, or the grey of detectors."""
        count = len(mode)
        mean = np.broadcast_to(np.asarray(self.how.mean, np.float64), (count,)) / (self.how.scale or 1.0)
        if self.how.channels == "bgr":
            mean = mean[::-1]
        filled = np.rint(mean).clip(0, PIXELS).astype(int) if mean.any() else np.full(count, _LETTERBOX)
        return int(filled[0]) if count == 1 else tuple(map(int, filled))


def _rounded_up(side: float) -> int:
    return max(_STEP, math.ceil(side / _STEP) * _STEP)


def image_input(spec: InputSpec, given: Preprocessing, stated: Preprocessing) -> ImageInput:
    """Return how images become what `spec` reads.

    Args:
        given: what the user says.
        stated: what the file says of itself; it counts where the user says nothing. What neither says is
            taken from the shape, or assumed.

    Raises:
        TrilobitError: the input takes no images, or what is said of it contradicts its shape or type.
    """
    how = given.over(stated)
    layout = how.layout or _layout(spec)
    channels, height, width = _channels_height_width(spec, layout)
    how = how.over(_assumed(spec, how, channels)).over(Preprocessing(layout=layout))
    _require_consistent(spec, how, channels)
    open_height, open_width = how.size or (0, 0)
    return ImageInput(
        spec,
        how,
        height if isinstance(height, int) else open_height,
        width if isinstance(width, int) else open_width,
    )


def usable(spec: InputSpec, given: Preprocessing, stated: Preprocessing) -> Preprocessing:
    """Return what a file says of its preprocessing as far as its input can be meant: a file that reads whole
    numbers normalises pixels itself, and what contradicts the input's shape is somebody else's.
    """
    if not np.issubdtype(np.dtype(spec.dtype), np.floating):
        stated = replace(stated, mean=None, std=None, scale=None)
    try:
        image_input(spec, given, stated)
    except TrilobitError:
        return Preprocessing()
    return stated


def _layout(spec: InputSpec) -> Layout:
    if len(spec.shape) not in (3, 4):
        raise TrilobitError(
            f"input {spec} takes no images (batch, channels, height, width); give it as .npz, an "
            "array per input"
        )
    dimensions = spec.shape[-3:]
    first, last = (_may_be_channels(dimensions[place]) for place in (0, 2))
    if first and last and isinstance(dimensions[0], int) and isinstance(dimensions[2], int):
        raise TrilobitError(f"input {spec}: channels may be first or last; say which: --layout nchw or nhwc")
    if isinstance(dimensions[2], int) and last:
        return "nhwc"
    if first:
        return "nchw"
    raise TrilobitError(
        f"input {spec} takes no images: neither its first nor its last dimension is 1, 3 or 4 channels; give "
        "it as .npz, an array per input"
    )


def _may_be_channels(dimension: Dimension) -> bool:
    return isinstance(dimension, str) or dimension in CHANNELS.values()


def _channels_height_width(spec: InputSpec, layout: str) -> tuple[Dimension, Dimension, Dimension]:
    dimensions = spec.shape[-3:]
    if len(spec.shape) not in (3, 4):
        _layout(spec)
    return dimensions if layout == "nchw" else (dimensions[2], dimensions[0], dimensions[1])  # type: ignore[return-value]


def _assumed(spec: InputSpec, how: Preprocessing, channels: Dimension) -> Preprocessing:
    """Return what is assumed where nobody says anything: RGB; pixels as they are for integer inputs and
    where the mean is in pixels, else 0..1; proportions kept.
    """
    colour = {1: "grey", 4: "rgba"}.get(channels if isinstance(channels, int) else 3, "rgb")
    raw = not np.issubdtype(np.dtype(spec.dtype), np.floating) or any(value > 4 for value in how.mean or ())
    return Preprocessing(
        mean=(0.0,),
        std=(1.0,),
        scale=1.0 if raw else 1 / PIXELS,
        resize="crop",
        channels=colour,  # type: ignore[arg-type]
    )


def _require_consistent(spec: InputSpec, how: Preprocessing, channels: Dimension) -> None:
    colour = how.channels or "rgb"
    if isinstance(channels, int) and channels != CHANNELS[colour]:
        raise TrilobitError(
            f"input {spec} has {channels} channels in layout {how.layout}, and {colour} has "
            f"{CHANNELS[colour]}; --layout and --channels say which"
        )
    for name in ("mean", "std"):
        values = getattr(how, name)
        if len(values) not in (1, CHANNELS[colour]):
            raise TrilobitError(
                f"{name} {numbers_text(values)}: {len(values)} numbers for the {CHANNELS[colour]} channels "
                f"of input {spec}; one per channel, or one for all"
            )
    kind = np.dtype(spec.dtype)
    if np.issubdtype(kind, np.floating):
        if how.scale and how.scale < 1 and any(abs(value) > 4 for value in how.mean or ()):
            raise TrilobitError(
                f"mean {numbers_text(how.mean or ())} is in pixels 0..255, and --scale makes them "
                f"0..{PIXELS * how.scale:g}: write --scale raw, or the mean of scaled pixels"
            )
    elif kind != np.uint8 and kind not in (np.dtype(np.int32), np.dtype(np.int64)):
        raise TrilobitError(f"input {spec} takes no pixels 0..255 as they are; give it as .npz")
    elif (how.scale, how.mean, how.std) != (1.0, (0.0,), (1.0,)):
        raise TrilobitError(f"input {spec} reads pixels as they are: leave out --mean, --std and --scale")


def described(made: ImageInput, given: Preprocessing, stated: Preprocessing) -> str:
    """Return in one line what was done to images, and which of it nobody said."""
    how = made.how
    scale = how.scale or 1.0
    top = "0..255" if scale == 1 else f"0..{PIXELS * scale:.4g}"
    plain = how.mean == (0.0,) and how.std == (1.0,)
    normal = "" if plain else f", less {numbers_text(how.mean or ())}, by {numbers_text(how.std or ())}"
    cover = f" of {how.cover:g}" if how.cover else ""
    text = (
        f"{made.spec.name}: {shape_text(made.shape)} {made.spec.dtype} in {how.layout}, {how.channels}, "
        f"pixels {top}{normal}, {how.resize}{cover}"
    )
    from_file = [name for name in stated.said if name not in given.said]
    assumed = [
        name
        for name in ("scale", "mean", "std", "channels", "layout", "resize")
        if name not in (*given.said, *stated.said)
        and (made.spec.dtype != "uint8" or name in ("channels", "resize"))
    ]
    text += f" (the file says {', '.join(from_file)})" if from_file else ""
    return text + (f" (assumed: {', '.join(assumed)})" if assumed else "")
