"""Trained models in other forms than ONNX: recognised by how they begin, so that people hear what to do."""

from collections.abc import Sequence

EXPORT = "export it with torch.onnx.export, or give the module itself to nas.tune in Python"
# offset, bytes there, what such a file is, and what to do with it
BEGINNINGS: Sequence[tuple[int, bytes, str, str]] = (
    (0, b"PK\x03\x04", "a zip archive, as PyTorch and Keras write models", EXPORT),
    (0, b"\x80\x02", "a Python pickle, as PyTorch wrote models", EXPORT),
    (0, b"\x80\x04", "a Python pickle", "such files run code when they are opened; give the ONNX file"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes models", "convert it with tf2onnx or keras' model.export"),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it with tf2onnx --tflite"),
    (4, b"ORTM", "ONNX Runtime's own format", "give the .onnx file that it was made from"),
    (0, b"GGUF", "a GGUF model", "give an ONNX file of it"),
    (0, b"<?xml", "XML, as OpenVINO writes models", "give the .onnx file that it was made from"),
    (8, b"{", "a safetensors file", f"it holds weights and no operations: {EXPORT}"),
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself",
        "fetch it with git lfs pull",
    ),
    (0, b"<!DOCTYPE", "a web page", "the download went wrong"),
    (0, b"<html", "a web page", "the download went wrong"),
)


def foreign_kind(content: bytes) -> str:
    """Return what a file is that is no ONNX, and what to do about it; nothing where that is not known."""
    if not content:
        return "it is empty; write it again"
    for offset, magic, kind, remedy in BEGINNINGS:
        if content[offset : offset + len(magic)] == magic:
            return f"it is {kind}; {remedy}"
    return ""
