"""What people give to be timed is refused in words that name it, what is allowed and what to do."""

from pathlib import Path

import numpy as np
import pytest

from hw_profiles.runtimes.plugin import host_runtime
from nas.cli.main import main
from nas.serving.given import example_for, opened_by
from tests.nas.tune.networks import image_network

ZEROS = np.zeros((1, 3, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an ONNX file: it is empty; write it again"),
        (
            b"this is no model\n" * 9,
            "not an ONNX file, or not all of it; give the .onnx file of a trained model ",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS, .*fetch it",
        ),
        (image_network()[:200], "not an ONNX file, or not all of it"),
    ],
)
def test_what_is_no_model_is_said_to_be_what_it_is(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        opened_by(host_runtime(), content)


def test_examples_that_do_not_fit_name_the_array_and_what_is_read(tmp_path: Path) -> None:
    executable = opened_by(host_runtime(), image_network())
    [info] = executable.inputs
    sizes = "x".join(str(size or "n") for size in info.shape)
    wrong = {
        "names.npz": ({"other": ZEROS}, f"no array {info.name}, it has other; give an .npz file"),
        "types.npz": ({info.name: ZEROS.astype(np.int64)}, f"{info.name} is int64, the model reads float32"),
        "sizes.npz": ({info.name: ZEROS[0]}, f"{info.name} is 3x4x4, the model reads {sizes}"),
    }
    for name, (arrays, said) in wrong.items():
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(ValueError, match=f"--inputs {name}: {said}"):
            example_for(executable, tmp_path / name)
    for content in (b"", b"no numbers"):
        (tmp_path / "text.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"--inputs text.npz: no .npz file of numbers; give an .npz"):
            example_for(executable, tmp_path / "text.npz")


def test_bench_says_what_a_file_is_and_blames_no_file_for_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.onnx").write_text("this is no model\n" * 9)
    (tmp_path / "good.onnx").write_bytes(image_network())
    np.savez(tmp_path / "other.npz", other=ZEROS)
    commands = {
        ("text.onnx",): "text.onnx: ONNX Runtime cannot run it: not an ONNX file",
        ("good.onnx", "--inputs", str(tmp_path / "other.npz")): "good.onnx: --inputs other.npz: no array ",
    }
    for (model, *more), said in commands.items():
        assert main(["bench", str(tmp_path / model), *more]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["compare-runtimes", "."],
            "no run and no tune; give an ONNX file, or the folder of a tune",
        ),
        (
            ["compare-runtimes", "none.onnx"],
            "no such file; give an ONNX file, or the folder of a tune",
        ),
        (["tune", "m.onnx", "--budget", "-5s"], "not a time: '-5s'; write for example 30s"),
        (["tune", "m.onnx", "--max-latency", "-1ms"], "-1ms"),
        (["run", "--max-latency", "-1ms"], "-1ms"),
    ],
)
def test_bad_words_are_one_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
