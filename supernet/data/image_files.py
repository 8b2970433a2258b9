"""One image file as pixels: who decodes what, and the limits that hostile files run into."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from hw_profiles.errors import TrilobitError, shown

SUFFIXES = (".jpg", ".jpeg", ".png")
MOST_PIXELS = 64_000_000  # of one image before it is scaled

_FORMATS = ("JPEG", "PNG")  # the decoders that Pillow may use, whatever a file is named
_GREY_MODES = ("1", "L", "LA")


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Return height and width of an image, as its file has them.

    Raises:
        TrilobitError: it cannot be decoded.
    """
    with _decoder(name), Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
        return opened.height, opened.width


def decode_image(data: bytes, name: str) -> Image.Image:
    """Return an image the right way up, of mode `L` where its file is grey, else `RGB`.

    Raises:
        TrilobitError: it cannot be decoded, or has more than `MOST_PIXELS`.
    """
    with _decoder(name), Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise TrilobitError(
                f"{name}: {opened.width} x {opened.height} pixels, and an image has at most {MOST_PIXELS:,}; "
                "scale it down or remove it"
            )
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bit grey; converting would clip it
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("L" if image.mode in _GREY_MODES else "RGB")


@contextmanager
def _decoder(name: str) -> Iterator[None]:
    """Tell what a decoder raises in one line; a warning of too many pixels is an error too."""
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            yield
    except (TrilobitError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything at all on what is damaged
        raise TrilobitError(
            f"{name}: broken image ({shown(str(error) or type(error).__name__)}); mend or remove it"
        ) from None
