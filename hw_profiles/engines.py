"""The libraries that do the work of single parts: what to install where one of them is missing."""

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version

# module that is imported -> package that brings it
PACKAGES: Mapping[str, str] = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "ai_edge_litert": "ai-edge-litert",
    "ai_edge_quantizer": "ai-edge-quantizer",
    "tflite_micro": "tflite-micro",
    "ncnn": "ncnn",
    "pnnx": "pnnx",
    "tvm": "apache-tvm",
    "tvm_ffi": "apache-tvm-ffi",
    "optuna": "optuna",
    "pymoo": "pymoo",
    "moocore": "moocore",
    "plotly": "plotly",
    "jinja2": "jinja2",
    "PIL": "pillow",
    "lightgbm": "lightgbm",
    "cryptography": "cryptography",
    "pandas": "pandas",
    "dask": "distributed",
    "distributed": "distributed",
}
# package that not every run needs -> the extra of Trilobit that brings it, with whatever else it needs
EXTRAS: Mapping[str, str] = {
    "apache-tvm": "tvm",
    "apache-tvm-ffi": "tvm",
    "openvino": "openvino",
    "ai-edge-litert": "litert",
    "ai-edge-quantizer": "litert",
    "tflite-micro": "tflite-micro",
    "ncnn": "ncnn",
    "pnnx": "ncnn",
    "pymoo": "pymoo",
    "cryptography": "sign",
    "pandas": "frames",
    "lightgbm": "bench",
    "distributed": "cluster",
}
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def missing_engine(error: ModuleNotFoundError) -> str:
    """Return how to install the library whose absence `error` is, in one line; empty where it is none of
    those: then it is a bug.
    """
    module = (error.name or "").partition(".")[0]
    if module not in PACKAGES:
        return ""
    return f"the package {PACKAGES[module]} is not installed: pip install {requirement(PACKAGES[module])!r}"


def requirement(package: str) -> str:
    """Return what `pip install` takes for a package: the extra that brings it, or the versions that Trilobit
    was tested with.
    """
    if package in EXTRAS:
        return f"trilobit[{EXTRAS[package]}]"
    try:
        declared = requires("trilobit") or []
    except PackageNotFoundError:  # run from its sources
        declared = []
    matching = [line.partition(";")[0].strip() for line in declared]
    return next((line for line in matching if (m := _NAME.match(line)) and m[0] == package), package)


def version_of(package: str) -> str | None:
    """Return the version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
