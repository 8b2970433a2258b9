"""Reading somebody's ONNX file: whole, from its own folder, or refused in one line."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import TensorProto, helper
from onnx_ir.passes import common as passes

from hw_profiles.errors import TrilobitError, shown
from supernet.imported.foreign_files import foreign_kind

LARGEST = 2**31 - 1  # bytes of a file in protobuf
ONNX_DOMAINS = ("", "ai.onnx")
GIVE = "give the .onnx file of a trained model"
_NAMED = 6  # files in one line
OLDEST_OPSET = 7  # of what the operation table and the converters know

logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # what they warn of is repaired or refused here
logging.getLogger("onnxscript").setLevel(logging.ERROR)


def read_onnx(source: Path | bytes) -> onnx.ModelProto:
    """Return what is in a file, with the weights that it keeps in others beside it.

    Raises:
        TrilobitError: it is no ONNX file, is not whole, or keeps weights outside its folder.
    """
    content = source if isinstance(source, bytes) else _content(source)
    proto = parse_onnx(content)
    _load_external(proto, source if isinstance(source, Path) else None)
    _check_usable(proto)
    return proto


def graph_of(proto: onnx.ModelProto) -> ir.Model:
    """Return a graph that may be changed; stored tensors are none of its inputs.

    Raises:
        TrilobitError: the file is damaged.
    """
    try:
        model = ir.from_proto(proto)
        passes.RemoveInitializersFromInputsPass()(model)
        return model
    except Exception as error:  # whatever it stumbles over in a damaged file
        raise TrilobitError(f"the ONNX file is damaged: {_line(error)}") from None


def _content(path: Path) -> bytes:
    if path.is_dir():
        inside = ", ".join(sorted(each.name for each in path.glob("*.onnx"))[:_NAMED])
        raise TrilobitError(
            f"{path}: is a folder; give the .onnx file{f' in it: {inside}' if inside else ''}"
        )
    if not path.is_file():
        raise TrilobitError(f"{path}: there is no such file; {GIVE}")
    size = path.stat().st_size
    if size > LARGEST:
        raise TrilobitError(f"{path}: has {size:,} bytes; an ONNX file has at most {LARGEST:,}")
    return path.read_bytes()


def parse_onnx(content: bytes) -> onnx.ModelProto:
    """Return what is in a file, its weights apart where others keep them.

    Raises:
        TrilobitError: it is no ONNX file, or not whole; says what it is and what to do.
    """
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own, and what it makes of text
        known = foreign_kind(content)
        what = f": {known}" if known else f", or not all of it; {GIVE} ({_line(error)})"
        raise TrilobitError(f"not an ONNX file{what}") from None
    if not proto.opset_import or not proto.HasField("graph"):
        known = foreign_kind(content) or f"it has no graph of operations; {GIVE}"
        raise TrilobitError(f"not an ONNX file: {known}")
    if not proto.graph.node or not proto.graph.output:
        raise TrilobitError("the ONNX file has no operations, or gives nothing")
    return proto


def _load_external(proto: onnx.ModelProto, path: Path | None) -> None:
    """Read the tensors that are kept in other files of the folder."""
    total = 0
    for tensor in stored_tensors(proto.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = _external_bytes(tensor, path)
            total += len(tensor.raw_data)
            if total > LARGEST:
                raise TrilobitError(f"its weights are more than the {LARGEST:,} bytes that can be tuned")
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def _external_bytes(tensor: TensorProto, model: Path | None) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if model is None:
        raise TrilobitError(
            f"weights are kept in {shown(location)}; give the path of the file, not its bytes"
        )
    path = (model.parent / location).resolve()
    # a cache of downloads links both files to where it keeps them
    folders = (model.parent.resolve(), model.resolve().parent)
    if not location or not any(path.is_relative_to(folder) for folder in folders):
        raise TrilobitError(f"weights in {shown(location)} are outside the folder of the ONNX file; refused")
    if not path.is_file():
        raise TrilobitError(f"the weights of {shown(tensor.name)} are in {shown(location)}, which is missing")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", path.stat().st_size))
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except (ValueError, OSError):
        raise TrilobitError(
            f"where {shown(tensor.name)} stands in {shown(location)} cannot be read"
        ) from None
    if len(data) < (length if "length" in entries else _least_bytes(tensor)):
        raise TrilobitError(f"{shown(location)} is not whole: {shown(tensor.name)} ends behind its end")
    return bytes(data)


def _least_bytes(tensor: TensorProto) -> int:
    """Return how many bytes a tensor takes at least; of types below 8 bits up to four share one."""
    itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    numbers = math.prod(tensor.dims)
    return int(numbers * itemsize if itemsize > 1 else numbers // 4)


def stored_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yield the stored tensors of a graph and of those inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from stored_tensors(inner)


def _check_usable(proto: onnx.ModelProto) -> None:
    opset = next((o.version for o in proto.opset_import if o.domain in ONNX_DOMAINS), None)
    if opset is not None and opset < OLDEST_OPSET:
        raise TrilobitError(f"the file is of opset {opset}; opset {OLDEST_OPSET} and later can be read")
    stored = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        kind = value.type.WhichOneof("value")
        if value.name not in stored and kind != "tensor_type":
            what = (kind or "unknown type").removesuffix("_type")
            raise TrilobitError(f"input {shown(value.name)} is a {what}; only tensors can be fed")
        if value.type.tensor_type.elem_type == TensorProto.STRING:
            raise TrilobitError(f"input {shown(value.name)} is text; only numbers can be fed")
    for value in proto.graph.output:
        if value.type.HasField("map_type") or value.type.sequence_type.elem_type.HasField("map_type"):
            raise TrilobitError(
                f"output {shown(value.name)} is a dictionary, which cannot be compared; export an array in "
                "its place, of scikit-learn models with options={'zipmap': False}"
            )


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
