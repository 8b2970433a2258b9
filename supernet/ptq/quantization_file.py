"""Writes and reads a `Quantization`, so that a run goes on without calibrating again: arrays of numpy, and
what they are as JSON among them."""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw_profiles.documents import MismatchError, parse, to_json
from hw_profiles.errors import TrilobitError
from hw_profiles.files import write_atomic
from hw_profiles.graph.formats import QuantParams
from supernet.formats.quantized_tensor import QuantizedTensor
from supernet.graph.quantized_graph import Parameters
from supernet.imported.model import ImportedModel
from supernet.ptq.constants import changed_constants, with_constants
from supernet.ptq.quantization import Compensation, Quantization

SCHEMA = "quantization/1"
_DOCUMENT = "document"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class StoredUnit:
    """Whose weight and bias the arrays of one number are.

    Attributes:
        unit: its name.
        format: of the weight.
    """

    unit: str
    format: str


@dataclass(frozen=True)
class StoredQuantization:
    """What the arrays of a file are.

    Attributes:
        model: SHA-256 of the model that it was made from.
        tensors: scale and zero point by tensor.
        parameters: arrays `0.codes`, `0.scales`, `0.zeros` and `0.bias` are of the first.
        constants: numbers of the model that were replaced; the first is the array `constant.0`.
        compensations: what each technique bought.
    """

    schema: str
    model: str
    tensors: Mapping[str, QuantParams]
    parameters: tuple[StoredUnit, ...]
    constants: tuple[str, ...]
    compensations: tuple[Compensation, ...]


def save_quantization(path: Path, quantization: Quantization, original: ImportedModel) -> None:
    """Write a quantization of a model, atomically.

    Args:
        original: the model that it was made from.
    """
    constants = changed_constants(quantization.model, original)
    document = StoredQuantization(
        SCHEMA,
        _fingerprint(original),
        quantization.tensors,
        tuple(StoredUnit(*key) for key in quantization.parameters),
        tuple(constants),
        quantization.compensations,
    )
    text = json.dumps(to_json(document)).encode()
    arrays: dict[str, NDArray[Any]] = {_DOCUMENT: np.frombuffer(text, np.uint8)}
    arrays |= {f"constant.{i}": array for i, array in enumerate(constants.values())}
    for i, parameters in enumerate(quantization.parameters.values()):
        arrays |= _arrays(i, parameters)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue())


def load_quantization(path: Path, original: ImportedModel) -> Quantization:
    """Return the quantization of a model that was written before.

    Raises:
        TrilobitError: the file is missing or damaged, or was made from another model.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            document = parse(StoredQuantization, json.loads(file[_DOCUMENT].tobytes()))
            _check(path, document, original)
            return _read(document, file, original)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MismatchError) as error:
        raise TrilobitError(f"{path} is no quantization that can be read ({error}); remove it") from None


def read_compensations(path: Path) -> tuple[Compensation, ...]:
    """Return what each technique bought, by the file of a quantization; nothing where there is none that can
    be read.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return parse(StoredQuantization, json.loads(file[_DOCUMENT].tobytes())).compensations
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MismatchError):
        return ()


def _check(path: Path, document: StoredQuantization, original: ImportedModel) -> None:
    if document.schema != SCHEMA:
        raise TrilobitError(f"{path} has the schema {document.schema!r}, not {SCHEMA!r}; remove it")
    if document.model != _fingerprint(original):
        raise TrilobitError(f"{path} was made from another model; remove it, or tune in another folder")


def _read(document: StoredQuantization, file: Arrays, original: ImportedModel) -> Quantization:
    constants = {name: file[f"constant.{i}"] for i, name in enumerate(document.constants)}
    parameters = {
        (stored.unit, stored.format): _parameters(i, file) for i, stored in enumerate(document.parameters)
    }
    model = with_constants(original, constants)
    return Quantization(model, document.tensors, parameters, document.compensations)


def _arrays(i: int, parameters: Parameters) -> dict[str, NDArray[Any]]:
    weight = parameters.weight
    arrays = {
        f"{i}.codes": weight.codes,
        f"{i}.scales": weight.scales,
        f"{i}.zeros": weight.zero_points,
        f"{i}.bias": parameters.bias,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def _parameters(i: int, file: Arrays) -> Parameters:
    scales, zeros = (file.get(f"{i}.{key}") for key in ("scales", "zeros"))
    return Parameters(QuantizedTensor(file[f"{i}.codes"], scales, zeros), file[f"{i}.bias"])


def _fingerprint(model: ImportedModel) -> str:
    return hashlib.sha256(model.content).hexdigest()
