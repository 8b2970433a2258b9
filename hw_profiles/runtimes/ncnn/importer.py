"""ONNX files as ncnn reads them: through its importer, pnnx, a program that its package ships."""

import subprocess
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from hw_profiles.errors import TrilobitError
from hw_profiles.runtimes.runtime import TensorInfo

PACKAGE = "pnnx"
LIMIT_S = 300.0
KEPT_BYTES = 128 * 2**20  # of imported files
_LETTERS = {"float32": "f32"}


@dataclass(frozen=True)
class Imported:
    """A network as ncnn reads it.

    Attributes:
        layers: the text that describes them.
        weights: their numbers.
    """

    layers: str
    weights: bytes

    @property
    def kinds(self) -> tuple[str, ...]:
        """Return the kind of each layer, in order."""
        return tuple(line.split()[0] for line in self.layers.splitlines()[2:] if line.strip())


class Importer:
    """Imports files; those used last are kept.

    Raises:
        ModuleNotFoundError: the importer is not installed.
    """

    def __init__(self) -> None:
        spec = find_spec(PACKAGE)  # importing it would bring torch
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
        self._program = Path(next(iter(spec.submodule_search_locations))) / PACKAGE
        self._kept = OrderedDict[bytes, Imported]()
        self._size = 0

    def read(self, model: bytes, inputs: Sequence[TensorInfo]) -> Imported:
        """Return an ONNX file as ncnn reads it.

        Args:
            inputs: of the file, all sizes known.

        Raises:
            TrilobitError: the importer does not take it.
        """
        key = sha256(model).digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        imported = self._imported(model, inputs)
        if len(imported.weights) <= KEPT_BYTES:
            self._kept[key] = imported
            self._size += len(imported.weights)
        while self._size > KEPT_BYTES:
            self._size -= len(self._kept.popitem(last=False)[1].weights)
        return imported

    def _imported(self, model: bytes, inputs: Sequence[TensorInfo]) -> Imported:
        shapes = ",".join(_shape_text(info) for info in inputs)
        with tempfile.TemporaryDirectory(prefix="trilobit-") as name:
            folder = Path(name)
            (folder / "model.onnx").write_bytes(model)
            command = [str(self._program), "model.onnx", f"inputshape={shapes}", "fp16=0"]
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
                )
            except subprocess.TimeoutExpired:
                raise TrilobitError(f"ncnn's importer takes longer than {LIMIT_S:.0f} s") from None
            layers, weights = folder / "model.ncnn.param", folder / "model.ncnn.bin"
            if done.returncode or not (layers.is_file() and weights.is_file()):
                raise TrilobitError(f"ncnn's importer does not take it: {_last_line(done.stderr)}")
            return Imported(layers.read_text(), weights.read_bytes())


def _shape_text(info: TensorInfo) -> str:
    if info.dtype not in _LETTERS:
        raise TrilobitError(f"ncnn reads float32; input {info.name} is {info.dtype}")
    return f"[{','.join(map(str, info.shape))}]{_LETTERS[info.dtype]}"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
