"""Parts are disjoint, stratified and deterministic; folder, tar and zip agree; mistakes name the remedy."""

import io
import os
import tarfile
import zipfile
from itertools import accumulate, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hw_profiles.errors import TrilobitError
from supernet.data import cifar10
from supernet.data.images import Images
from supernet.data.splits import stratified_split
from supernet.tasks.image_classification import ImageClassification
from supernet.tasks.loading import load_images
from tests.published_data import DataFile

PARTS = ("train", "validation", "test")


def png(rng: np.random.Generator, shape: tuple[int, ...] = (6, 6, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def make_folder(
    root: Path, *, parts: tuple[str, ...] = ("train", "test"), per_class: int = 5, grey: bool = False
) -> Path:
    rng = np.random.default_rng(0)
    for part in parts:
        for name in ("ant", "bee"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                (folder / f"{i}.png").write_bytes(png(rng, (6, 6) if grey else (6, 6, 3)))
    return root


def pack_tar(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:xz") as archive:
        archive.add(folder, "anything/deeper")
    return target


def pack_zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, file.relative_to(folder))
    return target


@pytest.fixture(scope="module")
def digits() -> ImageClassification:
    return load_images("digits", seed=0)


# -- split -----------------------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=200),
    seed=st.integers(0, 9),
)
def test_split_is_a_stratified_partition(labels: list[int], seed: int) -> None:
    kept = np.array([x for x in labels if labels.count(x) >= 3], np.int64)
    if not len(kept):
        return
    parts = stratified_split(kept, (0.6, 0.2, 0.2), seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(len(kept)))
    for label in np.unique(kept):
        counts = [int((kept[rows] == label).sum()) for rows in parts]
        assert min(counts) >= 1
        assert all(abs(count - 0.2 * sum(counts)) <= 1 for count in counts[1:])


def test_split_follows_the_seed() -> None:
    labels = np.repeat(np.arange(3), 30)
    first, again, other = (stratified_split(labels, (0.5, 0.5), seed=seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


# -- digits ----------------------------------------------------------------------------------------


def test_digits_are_real_scans_in_three_parts(digits: ImageClassification) -> None:
    assert [len(getattr(digits, part)) for part in PARTS] == [1079, 359, 359]
    assert digits.train.pixels.shape[1:] == (32, 32, 1)
    assert digits.train.pixels.dtype == np.uint8
    assert digits.channels == 1
    assert digits.classes == tuple("0123456789")
    for part in PARTS:
        share = np.bincount(getattr(digits, part).labels) / len(getattr(digits, part))
        assert np.abs(share - 0.1).max() < 0.01


def test_no_digit_is_in_two_parts(digits: ImageClassification) -> None:
    rows = [{image.tobytes() for image in getattr(digits, part).pixels} for part in PARTS]
    assert len(set.union(*rows)) == sum(map(len, rows))


def test_loading_is_deterministic(digits: ImageClassification) -> None:
    assert load_images("digits", seed=0).fingerprint == digits.fingerprint
    assert load_images("digits", seed=1).fingerprint != digits.fingerprint


def test_changed_pixel_changes_the_fingerprint(digits: ImageClassification) -> None:
    pixels = digits.test.pixels.copy()
    pixels[0, 0, 0, 0] ^= 1
    changed = Images(pixels, digits.test.labels)
    copy = ImageClassification(
        "digits", digits.classes, digits.train, digits.validation, changed, digits.mean, digits.std
    )
    assert copy.fingerprint != digits.fingerprint


# -- folders and archives --------------------------------------------------------------------------


def test_folder_tar_and_zip_give_the_same_data(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    tar, packed = pack_tar(folder, tmp_path / "data.tar.xz"), pack_zip(folder, tmp_path / "data.zip")
    loaded = [load_images(f"imagefolder:{path}", seed=3) for path in (folder, tar, packed)]
    assert len({dataset.fingerprint for dataset in loaded}) == 1
    assert [len(getattr(loaded[0], part)) for part in PARTS] == [8, 2, 10]
    assert loaded[0].classes == ("ant", "bee")
    assert {dataset.name for dataset in loaded} == {"data"}


def test_cifar10_reads_other_archives_as_image_folders(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    expected = load_images(f"imagefolder:{folder}", seed=0).fingerprint
    tar = pack_tar(folder, tmp_path / "data.tar.xz")
    assert [load_images(f"cifar10:{path}", seed=0).fingerprint for path in (folder, tar)] == [expected] * 2


@pytest.mark.parametrize(
    ("parts", "lengths"),
    [
        (("train",), [6, 2, 2]),
        (("train", "test"), [8, 2, 10]),
        (("train", "val"), [8, 2, 10]),  # a lone val is the test part
        (("train", "val", "test"), [10, 10, 10]),
    ],
)
def test_parts_of_the_publisher_are_kept(tmp_path: Path, parts: tuple[str, ...], lengths: list[int]) -> None:
    dataset = load_images(f"imagefolder:{make_folder(tmp_path / 'data', parts=parts)}", seed=0)
    assert [len(getattr(dataset, part)) for part in PARTS] == lengths


def test_grey_stays_grey_unless_one_image_is_in_colour(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", grey=True)
    assert load_images(f"imagefolder:{folder}", seed=0).channels == 1
    (folder / "train" / "bee" / "colour.png").write_bytes(png(np.random.default_rng(1)))
    assert load_images(f"imagefolder:{folder}", seed=0).channels == 3


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", grey=True)
    ramp = np.linspace(0, 65535, 36).reshape(6, 6).astype(np.uint16)
    for file in folder.rglob("*.png"):
        Image.fromarray(ramp).save(file)
    assert (
        load_images(f"imagefolder:{folder}", seed=0).test.pixels[0, :, :, 0].tolist() == (ramp >> 8).tolist()
    )


def test_sizes_follow_the_first_image_or_the_option(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    (folder / "train" / "bee" / "9.png").write_bytes(png(np.random.default_rng(1), (20, 10, 3)))
    assert load_images(f"imagefolder:{folder}", seed=0).train.pixels.shape[1:] == (6, 6, 3)
    assert load_images(f"imagefolder:{folder}?size=9", seed=0).train.pixels.shape[1:] == (9, 9, 3)


def test_cache_gives_the_same_data_and_survives_damage(tmp_path: Path) -> None:
    tar, cache = pack_tar(make_folder(tmp_path / "data"), tmp_path / "data.tar.xz"), tmp_path / "cache"
    fresh = load_images(f"imagefolder:{tar}", seed=0)
    for _ in range(2):
        assert load_images(f"imagefolder:{tar}", seed=0, cache=cache).fingerprint == fresh.fingerprint
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    assert load_images(f"imagefolder:{tar}", seed=0, cache=cache).fingerprint == fresh.fingerprint


def test_hostile_members_are_ignored(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    expected = load_images(f"imagefolder:{folder}", seed=0).fingerprint
    target = tmp_path / "data.tar"
    with tarfile.open(target, "w") as archive:
        archive.add(folder, "data")
        for name in ("../train/ant/up.png", "/train/ant/root.png", "data/train/ant/.hidden.png"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"bad"))
        link = tarfile.TarInfo("data/train/ant/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert load_images(f"imagefolder:{target}", seed=0).fingerprint == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "data.tar"]


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mnist", "unknown data source 'mnist'; known: digits, imagefolder:PATH"),
        ("digits:8", "'digits' takes no argument"),
        ("imagefolder:", "imagefolder needs a path"),
        ("imagefolder:/nowhere", "no such file or folder"),
        ("imagefolder:/nowhere?side=3", r"unknown option 'side=3'.*size=N"),
        ("imagefolder:/nowhere?size=0", "unknown option 'size=0'"),
        ("cifar10:", "cifar10 needs a folder"),
        ("cifar10:/nowhere/cifar-10-python.tar.gz", "pickled, so never read; give cifar-10-binary"),
    ],
)
def test_wrong_source_names_the_remedy(source: str, message: str) -> None:
    with pytest.raises(TrilobitError, match=message) as error:
        load_images(source, seed=0)
    assert "\n" not in str(error.value)


def refuses(folder: Path, message: str) -> None:
    with pytest.raises(TrilobitError, match=message) as error:
        load_images(f"imagefolder:{folder}", seed=0)
    assert "\n" not in str(error.value)


def test_empty_folder(tmp_path: Path) -> None:
    refuses(tmp_path, r"no images in class folders; expected \[anything/\]train/CLASS")


def test_no_train_part(tmp_path: Path) -> None:
    refuses(make_folder(tmp_path / "data", parts=("test",)), "no train part, only test")


def test_one_class(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", parts=("train",))
    for file in (folder / "train" / "bee").iterdir():
        file.unlink()
    refuses(folder, "only one class, 'ant'")


def test_too_few_images(tmp_path: Path) -> None:
    refuses(
        make_folder(tmp_path / "data", parts=("train",), per_class=2),
        "'ant' has 2 training images, fewer than 3",
    )


def test_class_without_training_images(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    (folder / "test" / "bee").rename(folder / "test" / "cow")
    refuses(folder, "no training images of cow")


def test_broken_image_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data")
    broken = folder / "train" / "bee" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    refuses(folder, "train/bee/3.png: broken image")


@pytest.mark.parametrize("suffix", [".tar.xz", ".zip"])
def test_truncated_archive(tmp_path: Path, suffix: str) -> None:
    folder, target = make_folder(tmp_path / "data"), tmp_path / f"data{suffix}"
    (pack_zip if suffix == ".zip" else pack_tar)(folder, target)
    target.write_bytes(target.read_bytes()[:-200])
    refuses(target, "not a whole .tar, .tar.gz, .tar.xz or .zip file")


# -- CIFAR-10 as published: a stand-in archive in the same format ----------------------------------


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive like the published one with 30 images per file, at the URL that the reader knows."""
    rng, target = np.random.default_rng(0), tmp_path / "server" / cifar10.ARCHIVE
    target.parent.mkdir()
    with tarfile.open(target, "w:gz") as archive:
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            records = rng.integers(0, 256, (30, 3073), dtype=np.uint8)
            records[:, 0] = np.repeat(np.arange(10), 3)
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = records.size
            archive.addfile(member, io.BytesIO(records.tobytes()))
    monkeypatch.setattr(cifar10, "URL", target.as_uri())
    monkeypatch.setattr(cifar10, "MD5", cifar10._md5(target.read_bytes()))
    return target


def test_cifar10_is_downloaded_once_and_read_without_pickle(tmp_path: Path, published: Path) -> None:
    dataset = load_images(f"cifar10:{tmp_path / 'data'}", seed=0)
    assert [len(getattr(dataset, part)) for part in PARTS] == [130, 20, 30]
    assert dataset.train.pixels.shape[1:] == (32, 32, 3)
    with tarfile.open(published) as archive:
        member = archive.extractfile("cifar-10-batches-bin/test_batch.bin")
        assert member is not None
        first = np.frombuffer(member.read()[1:3073], np.uint8).reshape(3, 32, 32)
    assert (dataset.test.pixels[0] == first.transpose(1, 2, 0)).all()
    published.unlink()
    again = load_images(f"cifar10:{tmp_path / 'data' / cifar10.ARCHIVE}", seed=0)
    assert again.fingerprint == dataset.fingerprint


def test_cifar10_offline_says_what_to_fetch(tmp_path: Path, published: Path) -> None:
    published.unlink()
    with pytest.raises(TrilobitError, match=r"absent, and .* cannot be reached .* put it there"):
        load_images(f"cifar10:{tmp_path / 'data'}", seed=0)


def test_cifar10_wrong_checksum(tmp_path: Path, published: Path) -> None:
    (tmp_path / cifar10.ARCHIVE).write_bytes(b"half a download")
    with pytest.raises(TrilobitError, match="MD5 is not the published"):
        load_images(f"cifar10:{tmp_path}", seed=0)
    published.write_bytes(b"another file")
    with pytest.raises(TrilobitError, match="the download's MD5 is not the published"):
        load_images(f"cifar10:{tmp_path / 'data'}", seed=0)
    assert not (tmp_path / "data").exists()


# -- batches ---------------------------------------------------------------------------------------


def test_batches_are_normalised(digits: ImageClassification) -> None:
    batch = digits.inputs(digits.train, 32)
    assert batch.shape == (1079, 1, 32, 32)
    assert batch.dtype == torch.float32
    assert abs(float(batch.mean())) < 1e-4
    assert abs(float(batch.std()) - 1) < 1e-3
    direct = (digits.train.pixels[5, :, :, 0] / 255 - digits.mean[0]) / digits.std[0]
    torch.testing.assert_close(batch[5, 0], torch.from_numpy(direct).float(), atol=1e-4, rtol=0)


def test_statistics_are_those_of_numpy(digits: ImageClassification) -> None:
    scaled = digits.train.pixels / 255
    np.testing.assert_allclose(digits.mean, scaled.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(digits.std, scaled.std(axis=(0, 1, 2)))


@pytest.mark.parametrize("resolution", [12, 24, 40])
def test_batches_are_resized(digits: ImageClassification, resolution: int) -> None:
    batch = digits.inputs(digits.test[:7], resolution)
    assert batch.shape == (7, 1, resolution, resolution)
    assert abs(float(batch.mean() - digits.inputs(digits.test[:7], 32).mean())) < 0.05


@pytest.mark.slow
def test_cifar10_images_stream_from_the_archive(data_file: DataFile) -> None:
    dataset = load_images(f"cifar10:{data_file('cifar10-images.tar.xz')}", seed=0)
    assert dataset.classes == cifar10.CLASSES
    assert [len(getattr(dataset, part)) for part in PARTS] == [45_000, 5_000, 10_000]
    assert np.bincount(dataset.validation.labels).tolist() == [500] * 10
    np.testing.assert_allclose(dataset.mean, (0.4914, 0.4822, 0.4465), atol=2e-3)  # as published for CIFAR-10


def test_folders_may_lie_deeper_than_pythons_stack(tmp_path: Path) -> None:
    folders = list(accumulate(repeat("d", 1_500), os.path.join, initial=str(tmp_path)))[1:]
    for folder in folders:
        os.mkdir(folder)
    with pytest.raises(TrilobitError, match="no images"):
        load_images(f"imagefolder:{tmp_path}", seed=0)
    for folder in reversed(folders):  # pytest's own clean-up would give up
        os.rmdir(folder)
