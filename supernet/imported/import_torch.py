"""From a torch module to an `ImportedModel`, by torch's own exporter."""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from hw_profiles.errors import TrilobitError, one_line
from supernet.imported.import_onnx import import_onnx
from supernet.imported.made_up import Feeds
from supernet.imported.model import ImportedModel

Examples = Tensor | Sequence[Any] | Mapping[str, Any]  # what a module is called with: one, by place, by name


def import_torch(
    module: nn.Module | torch.export.ExportedProgram,
    example_inputs: Examples,
    *,
    dynamic_shapes: Any = None,
) -> ImportedModel:
    """Return somebody's network, as it is in evaluation; the module is left as it was.

    Args:
        module: is traced by `torch.export`; or a program that was.
        example_inputs: what it is called with: a tensor, a tuple by place, or a dictionary by name.
        dynamic_shapes: which dimensions stay open, as `torch.export.export` takes them.

    Raises:
        TrilobitError: torch cannot export it, or the network cannot be used; says why.
    """
    content = onnx_of(module, example_inputs, dynamic_shapes=dynamic_shapes)
    feeds = feeds_of(content, example_inputs)
    shapes = {name: array.shape for name, array in feeds.items()}
    return import_onnx(content, shapes=shapes, feeds=feeds)


def onnx_of(
    module: nn.Module | torch.export.ExportedProgram, example_inputs: Examples, *, dynamic_shapes: Any = None
) -> bytes:
    """Return a module as an ONNX file; see `import_torch`.

    Raises:
        TrilobitError: torch cannot export it.
    """
    args, kwargs = _call(example_inputs)
    training = isinstance(module, nn.Module) and module.training
    if isinstance(module, nn.Module):
        module.eval()
    try:
        with _quietly():
            program = torch.onnx.export(
                module,
                args,
                kwargs=kwargs,
                dynamo=True,
                verbose=False,
                dynamic_shapes=None if isinstance(module, torch.export.ExportedProgram) else dynamic_shapes,
            )
            assert program is not None
            return bytes(program.model_proto.SerializeToString())
    except Exception as error:  # whatever the exporter stumbles over
        raise TrilobitError(f"torch cannot export this module as ONNX: {_reason(error)}") from error
    finally:
        if training and isinstance(module, nn.Module):
            module.train()


def _reason(error: BaseException) -> str:
    """Return what began it: the exporter says only in which of its steps that was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error) if isinstance(error, Exception) else type(error).__name__


def _call(example_inputs: Examples) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    return tuple(example_inputs), {}


@contextlib.contextmanager
def _quietly() -> Any:
    """Keep what the exporter says of its own parts to itself."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def feeds_of(content: bytes, example_inputs: Examples) -> Feeds:
    """Return the examples by the names that the exporter gave its inputs, in the order of the call.

    Raises:
        TrilobitError: there are more or fewer of them.
    """
    args, kwargs = _call(example_inputs)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    inputs = onnx.load_model_from_string(content).graph.input
    if len(inputs) != len(leaves):
        raise TrilobitError(
            f"the exported network reads {len(inputs)} tensors, but {len(leaves)} are given; leave "
            "out what it does not use"
        )
    arrays = [np.ascontiguousarray(leaf.detach().cpu().numpy()) for leaf in leaves]
    return {value.name: array for value, array in zip(inputs, arrays, strict=True)}
