"""Samples from folders, archives, array files and functions: what is read is what was written."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hw_profiles.errors import TrilobitError
from supernet.data.input_spec import InputSpec
from supernet.data.preprocessing import Preprocessing, parse_preprocessing
from supernet.data.read_samples import read_samples, sample_shapes
from supernet.data.samples import Samples

NCHW, NHWC = InputSpec("x", ("n", 3, 6, 8), "float32"), InputSpec("x", ("n", 6, 8, 3), "float32")
RAW = Preprocessing(scale=1.0)


def pixels(count: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def files(count: int = 10) -> dict[str, bytes]:
    return {f"{i:02d}.png": png(image) for i, image in enumerate(pixels(count))}


def folder(path: Path, content: dict[str, bytes]) -> str:
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return str(path)


def packed(path: Path, content: dict[str, bytes]) -> str:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return str(path)
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as tar:  # type: ignore[call-overload]
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(TrilobitError) as caught:
        read_samples(*arguments, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- images --------------------------------------------------------------------------------------------------


def test_images_are_the_same_from_every_place(tmp_path: Path) -> None:
    content = files()
    places = [folder(tmp_path / "d", content)]
    places += [packed(tmp_path / name, content) for name in ("a.tar", "a.tar.gz", "a.tar.xz", "a.zip")]
    for place in places:
        samples = read_samples(place, [NHWC], RAW)
        assert samples.inputs["x"].shape == (10, 1, 6, 8, 3)
        assert np.array_equal(samples.inputs["x"][:, 0], pixels(10).astype(np.float32))
        assert samples.labels is None
        assert samples.names == tuple(content)


def test_the_models_own_preprocessing(tmp_path: Path) -> None:
    place, images = folder(tmp_path, files()), pixels(10).astype(np.float64)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    given = parse_preprocessing({"mean": ".485,.456,.406", "std": ".229 .224 .225", "scale": "1/255"})
    samples = read_samples(place, [NCHW], given)
    expected = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert np.allclose(samples.inputs["x"][:, 0], expected, atol=1e-5)
    assert "(assumed: channels, layout, resize)" in samples.origin
    bgr = read_samples(place, [NCHW], parse_preprocessing({"channels": "bgr", "scale": "raw"}))
    assert np.array_equal(bgr.inputs["x"][:, 0], images[..., ::-1].transpose(0, 3, 1, 2))
    quantized = read_samples(place, [InputSpec("x", (1, 6, 8, 3), "uint8")])
    assert np.array_equal(quantized.inputs["x"][:, 0], pixels(10))
    grey = read_samples(place, [InputSpec("x", (1, 1, 6, 8), "float32")])
    assert grey.inputs["x"].shape == (10, 1, 1, 6, 8)
    assert grey.inputs["x"].max() <= 1
    means_in_pixels = read_samples(place, [NHWC], Preprocessing(mean=(123.7, 116.3, 103.5)))
    assert np.allclose(means_in_pixels.inputs["x"][:, 0], images - (123.7, 116.3, 103.5), atol=1e-4)


def test_resizing_as_said(tmp_path: Path) -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, :10], image[:, 10:20], image[:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    place = folder(tmp_path, {f"{i}.png": png(np.roll(image, i, 1)) for i in range(8)})
    spec = [InputSpec("x", (1, 12, 12, 3), "float32")]
    read = {
        how: read_samples(place, spec, parse_preprocessing({"resize": how}))
        for how in ("crop", "pad", "stretch")
    }
    crop, pad, stretch = (read[how].inputs["x"][0, 0] for how in ("crop", "pad", "stretch"))
    assert np.allclose(crop[6, 6], (0, 1, 0))
    assert np.allclose(crop[6, (0, -1), 1], 1, atol=0.3)  # the green third alone
    assert np.allclose(pad[0], 114 / 255)
    assert np.allclose(pad[6, (1, 6, 10)], np.eye(3), atol=0.05)
    assert np.allclose(stretch[(0, 6, 11), (1, 6, 10)], np.eye(3), atol=0.05)


def test_open_sides_come_from_the_images(tmp_path: Path) -> None:
    place = folder(tmp_path / "a", files())
    spec = InputSpec("x", ("n", 3, "h", "w"), "float32")
    assert sample_shapes(read_samples(place, [spec])) == {"x": (1, 3, 6, 8)}
    assert sample_shapes(read_samples(place, [spec], metadata={"imgsz": "[12, 20]"})) == {"x": (1, 3, 12, 20)}
    mixed = folder(tmp_path / "b", {**files(), "x.png": png(pixels(1, 6, 20)[0])})
    assert "images of 2 sizes, 8x6 to 20x6" in refusal(mixed, [spec])
    assert "--shape x=1x3x224x224" in refusal(mixed, [spec])
    lines = read_samples(
        mixed,
        [InputSpec("x", ("n", 3, 48, "w"), "float32")],
        parse_preprocessing({"mean": ".5", "std": ".5"}),
    )
    assert lines.inputs["x"].shape == (11, 1, 3, 48, 160)
    assert np.allclose(lines.inputs["x"][0, 0, :, :, 70:], 0, atol=0.01)  # behind an image of 64 columns


def test_labels_are_class_folders(tmp_path: Path) -> None:
    content = {f"{'cab'[i % 3]}/{i}.png": data for i, data in enumerate(files().values())}
    place = folder(tmp_path / "d", content)
    samples = read_samples(place, [NCHW])
    assert samples.classes == ("a", "b", "c")
    assert samples.labels is not None
    assert [samples.classes[i] for i in samples.labels] == [name.split("/")[0] for name in samples.names]
    names = tmp_path / "names.txt"
    names.write_text("z\nc\nb\na\n")
    named = read_samples(place, [NCHW], labels=str(names))
    assert named.classes == ("z", "c", "b", "a")
    assert named.labels is not None
    assert set(named.labels.tolist()) == {1, 2, 3}
    in_file = read_samples(place, [NCHW], metadata={"names": "{0: 'c', 1: 'b', 2: 'a'}"})
    assert in_file.classes == ("c", "b", "a")
    assert read_samples(place, [NCHW], labels="none").labels is None
    names.write_text("a\nb\n")
    assert "folder 'c' is none of the 2 class names" in refusal(place, [NCHW], labels=str(names))
    assert "No such file" in refusal(place, [NCHW], labels=str(tmp_path / "absent"))


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    place, images = folder(tmp_path, files()), pixels(10).astype(np.float64)
    standard = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_1_1"}
    samples = read_samples(place, [NHWC], metadata=standard)
    assert np.allclose(samples.inputs["x"][:, 0], images[..., ::-1] / 127.5 - 1, atol=1e-5)
    assert "the file says mean, std, scale, channels" in samples.origin
    configured = {"preprocessor_config": '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}'}
    samples = read_samples(place, [NHWC], metadata=configured)
    assert np.allclose(samples.inputs["x"][:, 0], (images / 255 - 0.5) / 0.25, atol=1e-5)
    overruled = read_samples(
        place, [NHWC], parse_preprocessing({"mean": "0", "std": "1"}), metadata=configured
    )
    assert np.allclose(overruled.inputs["x"][:, 0], images / 255, atol=1e-5)


@given(
    st.dictionaries(
        st.sampled_from(["mean", "std", "imgsz", "names", "preprocess", "scale", "layout"]), st.text()
    )
)
def test_no_metadata_is_an_error(metadata: dict[str, str]) -> None:
    from supernet.data.preprocessing_metadata import class_names_of, preprocessing_of

    assert isinstance(preprocessing_of(metadata), Preprocessing)
    class_names_of(metadata)


def test_images_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no images (.jpg, .jpeg, .png)" in refusal(str(tmp_path / "empty"), [NCHW])
    assert "no such file or folder" in refusal(str(tmp_path / "absent"), [NCHW])
    (tmp_path / "x.csv").write_text("1,2")
    assert "x.csv: samples are a folder or an archive (.zip" in refusal(str(tmp_path / "x.csv"), [NCHW])
    few = folder(tmp_path / "few", files(5))
    assert "5 samples; at least 8 are needed" in refusal(few, [NCHW])
    same = folder(tmp_path / "same", dict.fromkeys(files(), png(np.full((6, 8, 3), 7, np.uint8))))
    assert "all 10 samples are the same, all 7" in refusal(same, [NCHW], RAW)
    broken = folder(tmp_path / "broken", {**files(), **{f"x{i}.png": b"no image" for i in range(3)}})
    assert "3 of 13 images cannot be read, the first: " in refusal(broken, [NCHW])
    mended = folder(tmp_path / "one", {**files(20), "x.png": b"no image"})
    assert "20 images, 1 unreadable" in read_samples(mended, [NCHW]).origin
    good = folder(tmp_path / "good", files())
    assert "takes no images" in refusal(good, [InputSpec("x", (1, 10), "float32")])
    assert "takes no images" in refusal(good, [InputSpec("x", (1, 7, 9, 9), "float32")])
    assert "this network has 2: x: " in refusal(good, [NCHW, InputSpec("y", (1,), "int64")])
    assert "reads pixels as they are" in refusal(
        good, [InputSpec("x", (1, 3, 6, 8), "uint8")], Preprocessing(mean=(0.5,))
    )
    assert "mean 0.5,0.5,0.5: 3 numbers for the 1" in refusal(
        good, [InputSpec("x", (1, 1, 6, 8), "float32")], Preprocessing(mean=(0.5,) * 3)
    )
    assert "--scale raw" in refusal(good, [NCHW], parse_preprocessing({"mean": "123.7", "scale": "1/255"}))
    assert "3 channels in layout nchw, and grey has 1" in refusal(
        good, [NCHW], Preprocessing(channels="grey")
    )
    assert "has no inputs" in refusal(good, [])


def test_preprocessing_that_is_none_is_one_line() -> None:
    wrong = {
        "mean": "a,b,c",
        "std": "0",
        "scale": "1/0",
        "resize": "crob",
        "layout": "chw",
        "channels": "rbg",
        "mena": "1",
    }
    for name, text in wrong.items():
        with pytest.raises(TrilobitError) as caught:
            parse_preprocessing({name: text})
        assert name in str(caught.value)
    assert parse_preprocessing({"channels": "gray"}) == Preprocessing(channels="grey")
    with pytest.raises(TrilobitError, match="did you mean 'crop'"):
        parse_preprocessing({"resize": "crob"})


# -- arrays --------------------------------------------------------------------------------------------------


def saved(path: Path, **arrays: object) -> str:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return str(path)


TOKENS = (InputSpec("ids", ("batch", "sequence"), "int64"), InputSpec("mask", ("batch", "sequence"), "int64"))


def test_arrays_with_and_without_the_batch_axis(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(9, 3, 6, 8)).astype(np.float32)
    without, with_batch = saved(tmp_path / "a.npz", x=values), saved(tmp_path / "b.npz", x=values[:, None])
    np.save(tmp_path / "c.npy", values)
    for place in (without, with_batch, str(tmp_path / "c.npy"), saved(tmp_path / "d.npz", arr_0=values)):
        samples = read_samples(place, [NCHW])
        assert np.array_equal(samples.inputs["x"], values[:, None])
        assert samples.feed(0)["x"].shape == (1, 3, 6, 8)
    ids = np.arange(50).reshape(10, 5)
    labelled = read_samples(saved(tmp_path / "e.npz", ids=ids, mask=ids % 2, labels=ids[:, 0] % 3), TOKENS)
    assert sample_shapes(labelled) == {"ids": (1, 5), "mask": (1, 5)}
    assert labelled.labels is not None
    assert labelled.labels.tolist() == (ids[:, 0] % 3).tolist()


def test_what_all_samples_share_is_given_once(tmp_path: Path) -> None:
    specs = (
        InputSpec("input", ("batch", "samples"), "float32"),
        InputSpec("state", (2, "batch", 4), "float32"),
        InputSpec("sr", (), "int64"),
    )
    sound = np.random.default_rng(0).normal(size=(12, 512)).astype(np.float32)
    place = saved(tmp_path / "a.npz", input=sound, state=np.zeros((2, 1, 4), np.float32), sr=np.array(16_000))
    samples = read_samples(place, specs)
    assert {name: array.shape for name, array in samples.feed(3).items()} == {
        "input": (1, 512),
        "state": (2, 1, 4),
        "sr": (),
    }
    assert len(samples[np.array([1, 2])]) == 2


def test_types_are_cast_where_nothing_is_lost(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 3, 6, 8))
    double = read_samples(saved(tmp_path / "a.npz", x=values / 7), [NCHW])
    assert double.inputs["x"].dtype == np.float32
    assert "read as" not in double.origin
    bytes_ = read_samples(saved(tmp_path / "b.npz", x=values.astype(np.uint8)), [NCHW])
    assert "x: uint8 0..255 are read as float32 as they are" in bytes_.origin
    whole = read_samples(
        saved(tmp_path / "c.npz", x=values.astype(float)), [InputSpec("x", (1, 3, 6, 8), "int64")]
    )
    assert np.array_equal(whole.inputs["x"][:, 0], values)
    assert "which int64 cannot hold" in refusal(
        saved(tmp_path / "d.npz", x=values / 7), [InputSpec("x", (1, 3, 6, 8), "int64")]
    )
    assert "which uint8 cannot hold" in refusal(
        saved(tmp_path / "e.npz", x=-values), [InputSpec("x", (1, 3, 6, 8), "uint8")]
    )
    huge = saved(tmp_path / "f.npz", x=values * 1e300)
    assert "which float32 cannot hold" in refusal(huge, [NCHW])


def test_arrays_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(9, 3, 6, 8)).astype(np.float32)
    ids = np.arange(50).reshape(10, 5)
    cases = {
        "input x: nx3x6x8 float32 was given 9x3x6x9 float32; wanted nx3x6x8": (
            {"x": np.pad(x, [(0, 0)] * 3 + [(0, 1)])},
            [NCHW],
        ),
        "input x: nx3x6x8 float32 was given 9x6x8x3": ({"x": x.transpose(0, 2, 3, 1)}, [NCHW]),
        "no array for input mask: batchxsequence int64; arrays: ids, masks; did you mean 'masks'?": (
            {"ids": ids, "masks": ids},
            TOKENS,
        ),
        "different numbers of samples: ids 10, mask 9": ({"ids": ids, "mask": ids[:9]}, TOKENS),
        "open dimension 'sequence' is 5 in input ids and 4 in input mask": (
            {"ids": ids, "mask": ids[:, :4]},
            TOKENS,
        ),
        "NaN or infinite values, first in sample 4": (
            {"x": np.where(np.arange(9)[:, None, None, None] == 4, np.nan, x)},
            [NCHW],
        ),
        "holds Python objects, which are never unpickled": ({"x": np.array([{}, 1], object)}, [NCHW]),
        "was given <U1": ({"x": np.full((9, 3, 6, 8), "a")}, [NCHW]),
        "was given complex64": ({"x": x.astype(np.complex64)}, [NCHW]),
        "labels are 8; wanted 9": ({"x": x, "y": np.zeros(8)}, [NCHW]),
        "classes count from 0": ({"x": x, "y": np.full(9, -1)}, [NCHW]),
        "in whole numbers": ({"x": x, "y": np.full(9, 0.5)}, [NCHW]),
        "all 9 samples are the same": ({"x": np.repeat(x[:1], 9, 0)}, [NCHW]),
        "7 samples; at least 8": ({"x": x[:7]}, [NCHW]),
    }
    missed = {}
    for number, (words, (arrays, specs)) in enumerate(cases.items()):
        message = refusal(saved(tmp_path / f"{number}.npz", **arrays), specs)
        if words not in message:
            missed[words] = message
    assert not missed
    assert "--mean is for images" in refusal(
        saved(tmp_path / "x.npz", x=x), [NCHW], Preprocessing(mean=(0.0,))
    )
    (tmp_path / "y.npz").write_bytes(b"PK\x03\x04 no archive")
    assert "not a whole .npy or .npz file" in refusal(str(tmp_path / "y.npz"), [NCHW])
    assert "no such file" in refusal(str(tmp_path / "absent.npy"), [NCHW])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(8, 20), st.lists(st.integers(1, 5), min_size=0, max_size=4), st.booleans(), st.integers(0, 99)
)
def test_what_is_saved_is_read(
    tmp_path: Path, count: int, shape: list[int], batched: bool, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(count, *shape))
    spec = InputSpec("x", (("n", *shape) if batched else tuple(shape)), "float64")
    place = saved(tmp_path / "a.npz", x=values)
    samples = read_samples(place, [spec])
    assert np.array_equal(samples.inputs["x"].reshape(values.shape), values)
    assert samples.inputs["x"].ndim == len(spec.shape) + 1


# -- functions -----------------------------------------------------------------------------------------------

MODULE = """
import numpy as np
X = np.random.default_rng(0).normal(size=(12, 3, 6, 8)).astype(np.float32)
def stacked(): return {"x": X, "labels": np.arange(12) % 2}
def array(): return X
def singles(): return (x for x in X)
def with_batch(): return [x[None] for x in X]
def dicts(): return [{"x": x, "y": i % 2} for i, x in enumerate(X)]
def pairs(): return [(x, i % 2) for i, x in enumerate(X)]
def batches(): return [(X[i : i + 4], np.arange(i, i + 4) % 2) for i in (0, 4, 8)]
def endless():
    while True:
        yield from X
def raises(): raise RuntimeError("no disk\\nat all")
def breaks():
    yield X[0]
    raise KeyError("second")
def nothing(): return []
def number(): return 7
def words(): return ["a"] * 9
def ragged(): return [X[0], X[0][..., 1:]]
NUMBER = 1
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Samples:
    (tmp_path / "my_samples.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return read_samples("my_samples:stacked", [NCHW])


def test_functions_give_samples_in_many_ways(module: Samples) -> None:
    for name in ("array", "singles", "with_batch", "dicts", "pairs", "batches"):
        samples = read_samples(f"my_samples:{name}", [NCHW])
        assert np.array_equal(samples.inputs["x"], module.inputs["x"]), name
        if name in ("dicts", "pairs", "batches"):
            assert samples.labels is not None
            assert np.array_equal(samples.labels, np.arange(12) % 2)
    assert len(read_samples("my_samples:endless", [NCHW], most=30)) == 30


def test_functions_that_fail_are_named_in_one_line(module: Samples) -> None:
    cases = {
        "raises": "my_samples:raises raised RuntimeError: 'no disk'",
        "breaks": "my_samples:breaks raised KeyError",
        "nothing": "my_samples:nothing: gave no samples",
        "number": "gave int; give an iterable",
        "words": "gave str where an array of numbers is needed",
        "ragged": "samples of x have 2 shapes, 1x3x6x7 to 1x3x6x8; pad them to one",
        "absent": "importing my_samples:absent raised AttributeError",
        "NUMBER": "my_samples:NUMBER: a int, not a function",
    }
    messages = {name: refusal(f"my_samples:{name}", [NCHW]) for name in cases}
    assert not {name: message for name, message in messages.items() if cases[name] not in message}
    assert "importing no_such_module:f raised ModuleNotFoundError" in refusal("no_such_module:f", [NCHW])


def test_an_input_that_is_one_number_is_fed_as_an_array() -> None:
    feed = Samples({"x": np.zeros((2, 1, 3)), "rate": np.full(2, 16000)}).feed(1)
    assert isinstance(feed["rate"], np.ndarray)
    assert feed["rate"].shape == ()


def test_of_many_arrays_evenly_chosen_ones_are_read(tmp_path: Path) -> None:
    x = np.arange(40, dtype=np.float32)[:, None, None, None, None] * np.ones((40, 1, 3, 6, 8), np.float32)
    np.savez(tmp_path / "many.npz", x=x, labels=np.arange(40) % 4)
    samples = read_samples(str(tmp_path / "many.npz"), [NCHW], most=10)
    assert len(samples) == 10
    chosen = samples.inputs["x"][:, 0, 0, 0, 0].astype(int)
    assert (np.diff(chosen) >= 4).all()
    assert (samples.labels == chosen % 4).all()
    assert samples.origin.startswith("10 of 40 samples")
