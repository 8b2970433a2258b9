"""Data to tune models of others on: crops of photographs, and drawn lines of text.

Photographs are those that scikit-learn, matplotlib and, where it is installed, scikit-image ship; text is
drawn with matplotlib's fonts. What is judged by lies in a folder `test`, of other photographs and other texts
than what lies in `train`, so that `nas tune` keeps them apart.

    python -m benchmarks.tune_data OUT [--cifar10 ARCHIVE]
"""

import argparse
import pydoc_data.topics
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from supernet.data.archives import read_files

TRAIN, TEST = "train", "test"
# where photographs are: package, folder, names; alternately to train and to judge by, in this order
PHOTOGRAPHS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("sklearn", "datasets/images"): ("china.jpg", "flower.jpg"),
    ("matplotlib", "mpl-data/sample_data"): ("grace_hopper.jpg", "Minduka_Present_Blue_Pack.png"),
    ("skimage", "data"): (
        *("coffee.png", "astronaut.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "camera.png"),
        *("hubble_deep_field.jpg", "coins.png", "grass.png", "retina.jpg", "ihc.png", "brick.png"),
        *("gravel.png", "clock_motion.png", "moon.png", "page.png"),
    ),
}
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "STIXGeneralBol")
LINE = (48, 320)  # height and width of a line of text
IMAGENET = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--scale", "1/255")
SIGNED = ("--mean", "0.5", "--std", "0.5", "--scale", "1/255")


@dataclass(frozen=True)
class TuneData:
    """A data set as `nas tune` takes it.

    Attributes:
        source: what follows `--data`.
        options: flags that say how images become what the model reads.
    """

    source: str
    options: tuple[str, ...]


def photographs() -> dict[str, Image.Image]:
    """Return the photographs that installed packages ship, by name, in a fixed order."""
    photos = {}
    for (package, folder), names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        for name in names:
            path = Path(spec.submodule_search_locations[0]) / folder / name
            if path.is_file():
                photos[path.stem] = Image.open(path).convert("RGB")
    return photos


def parts(photos: Mapping[str, Image.Image]) -> dict[str, dict[str, Image.Image]]:
    """Return photographs to train on and others to judge by, alternately."""
    items = list(photos.items())
    return {TRAIN: dict(items[::2]), TEST: dict(items[1::2])}


def crop(photo: Image.Image, side: int, *, rng: np.random.Generator) -> Image.Image:
    """Return a square of a photograph, of a random size and place, mirrored or not, of `side` pixels."""
    shortest = min(photo.size)
    edge = int(rng.integers(int(0.3 * shortest), shortest + 1))
    left, top = (int(rng.integers(length - edge + 1)) for length in photo.size)
    square = photo.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge))
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else square


def write_crops(folder: Path, side: int, sizes: Mapping[str, int], *, rng: np.random.Generator) -> Path:
    """Write so many crops of each part to `folder/PART/PHOTO-NUMBER.png`, in turns over the photographs."""
    for part, photos in parts(photographs()).items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        names = list(photos)
        for number in range(sizes[part]):
            name = names[number % len(names)]
            crop(photos[name], side, rng=rng).save(folder / part / f"{name}-{number:04d}.png")
    return folder


def vocabulary() -> list[str]:
    """Return words of Python's own manual, in a fixed order."""
    text = " ".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    return sorted(set(re.findall(r"\b[A-Za-z]{2,10}\b", text)))


def phrase(words: Sequence[str], *, rng: np.random.Generator) -> str:
    """Return some words, now and then a number or a sign."""
    chosen = [str(word) for word in rng.choice(words, int(rng.integers(1, 4)))]
    if rng.random() < 0.4:
        chosen.insert(int(rng.integers(len(chosen) + 1)), str(rng.integers(10 ** int(rng.integers(1, 5)))))
    return " ".join(chosen) + str(rng.choice(["", "", ".", ":", "!", "?"]))


def line(
    text: str, fonts: Sequence[Path], *, size: tuple[int, int] = LINE, rng: np.random.Generator
) -> Image.Image:
    """Return a line of text as it may be cut out of a photograph: any font, colours, a little noise."""
    height, width = size
    colours = rng.integers(0, 256, (2, 3))
    while abs(float(colours[0].mean() - colours[1].mean())) < 80:
        colours = rng.integers(0, 256, (2, 3))
    image = Image.new("RGB", (width, height), tuple(map(int, colours[0])))
    points = int(rng.integers(22, 35))
    font = ImageFont.truetype(str(fonts[int(rng.integers(len(fonts)))]), points)
    while font.getlength(text) > width - 12 and points > 10:
        points -= 1
        font = font.font_variant(size=points)
    place = (int(rng.integers(3, 9)), height // 2 + int(rng.integers(-3, 4)))
    ImageDraw.Draw(image).text(place, text, tuple(map(int, colours[1])), font, anchor="lm")
    noise = rng.normal(0, rng.uniform(0, 12), (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def write_lines(
    folder: Path,
    sizes: Mapping[str, int],
    *,
    size: tuple[int, int] = LINE,
    turned: float = 0.0,
    rng: np.random.Generator,
) -> Path:
    """Write so many drawn lines of each part to `folder/PART/NUMBER.png`, the words of each part its own.

    Args:
        turned: share of them that is upside down.
    """
    spec = find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("lines are drawn with matplotlib's fonts: pip install matplotlib")
    home = Path(spec.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    fonts, words = [home / f"{name}.ttf" for name in FONTS], vocabulary()
    for part, own in {TRAIN: words[::2], TEST: words[1::2]}.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for number in range(sizes[part]):
            drawn = line(phrase(own, rng=rng), fonts, size=size, rng=rng)
            if rng.random() < turned:
                drawn = drawn.transpose(Image.Transpose.ROTATE_180)
            drawn.save(folder / part / f"{number:04d}.png")
    return folder


def write_cifar10(archive: Path, folder: Path, sizes: Mapping[str, int]) -> Path:
    """Write the first images of every class of both parts of an archive to `folder/PART/CLASS/NAME`."""
    kept: dict[str, int] = {}

    def wanted(name: str) -> bool:
        part, class_name = Path(name).parts[-3:-1] if len(Path(name).parts) > 2 else ("", "")
        key = f"{part}/{class_name}"
        if part not in sizes or kept.get(key, 0) >= sizes[part] // 10:
            return False
        kept[key] = kept.get(key, 0) + 1
        return True

    for name, data in read_files(archive, wanted):
        path = folder.joinpath(*Path(name).parts[-3:])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def imagenet(folder: Path, *, train: int = 256, test: int = 256, seed: int = 0) -> TuneData:
    """Return crops of 224 pixels, for networks trained on ImageNet."""
    made = write_crops(folder, 224, {TRAIN: train, TEST: test}, rng=np.random.default_rng([seed, 224]))
    return TuneData(str(made), IMAGENET)


def wake_words(folder: Path, *, train: int = 512, test: int = 1_000, seed: int = 0) -> TuneData:
    """Return crops of 96 pixels, in 0..1."""
    made = write_crops(folder, 96, {TRAIN: train, TEST: test}, rng=np.random.default_rng([seed, 96]))
    return TuneData(str(made), ("--scale", "1/255"))


def text_lines(folder: Path, *, train: int = 128, test: int = 300, seed: int = 0) -> TuneData:
    """Return lines of 48 x 320 pixels, in -1..1."""
    made = write_lines(folder, {TRAIN: train, TEST: test}, rng=np.random.default_rng([seed, 320]))
    return TuneData(str(made), SIGNED)


def text_directions(folder: Path, *, train: int = 256, test: int = 600, seed: int = 0) -> TuneData:
    """Return lines of 48 x 192 pixels, half of them upside down, in -1..1."""
    sizes = {TRAIN: train, TEST: test}
    made = write_lines(folder, sizes, size=(48, 192), turned=0.5, rng=np.random.default_rng([seed, 192]))
    return TuneData(str(made), SIGNED)


def cifar10(archive: Path, folder: Path, *, train: int = 1_000, test: int = 10_000) -> TuneData:
    """Return images of CIFAR-10 with labels, pixels 0..255."""
    return TuneData(str(write_cifar10(archive, folder, {TRAIN: train, TEST: test})), ("--scale", "raw"))


MAKERS: Mapping[str, Callable[[Path], TuneData]] = {
    "imagenet": imagenet,
    "wake_words": wake_words,
    "text_lines": text_lines,
    "text_directions": text_directions,
}


def main() -> None:
    """Write every data set, and say how each is given to `nas tune`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar10", type=Path, help="archive of images: [anything/]{train,test}/CLASS/*.jpg")
    arguments = parser.parse_args()
    made = {name: make(arguments.out / name) for name, make in MAKERS.items()}
    if arguments.cifar10:
        made["cifar10"] = cifar10(arguments.cifar10, arguments.out / "cifar10")
    for name, data in made.items():
        print(f"{name}: --data {data.source} {' '.join(data.options)}")


if __name__ == "__main__":
    main()
