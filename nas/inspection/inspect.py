"""Looks at a trained model: what it is, and what each of its units can be in on a device."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hw_profiles.runtimes.device import Device
from hw_profiles.runtimes.plugin import HOST, choose, host_runtime
from hw_profiles.runtimes.runtime import Runtime
from nas.checks.model_notes import is_quantized, notes_on
from nas.checks.model_task import Outline, TensorFacts
from nas.checks.open_model import OpenedModel, look_at
from nas.emit.layer_formats import UnitFormats
from nas.emit.unit_formats import unit_formats
from nas.inspection.inspection import InspectedUnit, Inspection
from nas.tune.estimates import Costs, typical_work
from nas.tune.policies.space import policy_space
from nas.tune.setup.libraries import kernels_s, library_s, untuned_layers
from supernet.data.array_files import read_arrays
from supernet.imported.fixed_value import Fixed
from supernet.imported.model import ImportedModel, Unit

_NAMED = 6  # units that a note names
_SIDES = (1, 3, 4)  # channels of an image
_SHORTEST = 8  # side of one


def inspect_model(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    *,
    device: str = HOST,
    example: Path | None = None,
    fixed: Fixed | None = None,
) -> Inspection:
    """Return what the trained model in an ONNX file is.

    Args:
        path: of the file.
        shapes: sizes of inputs with open dimensions, by name.
        device: what formats and time are of.
        example: an .npz file with an array for each input, which it is run on; None makes one up.
        fixed: value of inputs that always have the same.

    Raises:
        TrilobitError: no ONNX file that can be used, no such device, or a shape that does not fit.
    """
    runtime = _runtime(choose(device).open())
    feeds = read_arrays(example) if example is not None else {}
    sizes = {name: array.shape for name, array in feeds.items()}
    opened = look_at(path, {**sizes, **(shapes or {})}, device=device, feeds=feeds, fixed=fixed)
    if isinstance(opened, Outline):
        return _outlined(str(path), opened, device)
    formats = unit_formats(opened.model, runtime)
    return _inspected(opened, formats, device, _tune_s(opened, formats, runtime))


def _runtime(device: Device) -> Runtime:
    return device.runtime or host_runtime()


def _outlined(name: str, outline: Outline, device: str) -> Inspection:
    """Return what is known before open dimensions have sizes."""
    return Inspection(
        model=name,
        opset=outline.opset,
        producer=outline.producer,
        size_bytes=outline.size_bytes,
        inputs=outline.inputs,
        outputs=outline.outputs,
        bound={},
        operations=outline.operations,
        prepared={},
        macs=0,
        parameters=0,
        units=(),
        device=device,
        latency_s=None,
        tune_s={},
        needs=(outline.request, *_data_for(outline.inputs)),
        notes=(*notes_on(outline.operations, outline.operations), *_undecided(outline, {})),
    )


def _inspected(
    opened: OpenedModel, formats: Mapping[str, UnitFormats], device: str, tune_s: Mapping[str, float]
) -> Inspection:
    model, outline, facts = opened.model, opened.outline, opened.facts
    units = tuple(_unit(unit, model, formats[unit.name]) for unit in model.units)
    return Inspection(
        model=opened.name,
        opset=outline.opset,
        producer=outline.producer,
        size_bytes=outline.size_bytes,
        inputs=outline.inputs,
        outputs=outline.outputs,
        bound=model.bound,
        operations=outline.operations,
        prepared=facts.operations,
        macs=model.macs,
        parameters=sum(unit.parameters for unit in units),
        units=units,
        device=device,
        latency_s=facts.run_s or None,
        tune_s=tune_s,
        needs=_data_for([tensor for tensor in outline.inputs if tensor.name not in model.fixed]),
        notes=(
            *notes_on(outline.operations, facts.operations),
            *_undecided(outline, model.fixed),
            *_notes(opened),
            *_left(units, outline.operations),
            *_nothing(units, outline.operations, device),
        ),
        fixed=model.fixed,
    )


def _undecided(outline: Outline, fixed: Fixed) -> Iterator[str]:
    """Yield how to have what stands inside an `If` tuned."""
    for name, value in outline.deciding.items():
        if name not in fixed:
            yield (
                f"input {name} decides what runs: with --fix {name}={value} what stands inside If can be "
                f"tuned, for that value; `nas tune` does so by itself where all its examples have one {name}"
            )


def _tune_s(opened: OpenedModel, formats: Mapping[str, UnitFormats], runtime: Runtime) -> dict[str, float]:
    """Return the seconds that a tune takes by stage; nothing where the model could not be run, or has nothing
    to tune.
    """
    allowed = {name: unit.allowed for name, unit in formats.items()}
    space = policy_space(opened.model, allowed)
    if not opened.facts.run_s or not space.choices or not all(allowed.values()):
        return {}
    size = opened.outline.size_bytes
    costs = Costs.of(opened.facts.run_s, opened.facts.open_s, size, library_s(runtime, size))
    stages = costs.stages(typical_work(space, costs))
    kernels = kernels_s(runtime, untuned_layers(runtime, opened.model, allowed))
    return {**stages, "profile": stages["profile"] + kernels}


def _unit(unit: Unit, model: ImportedModel, formats: UnitFormats) -> InspectedUnit:
    stored = [model.constants[name].size for name in (unit.weight, unit.bias) if name]
    return InspectedUnit(
        name=unit.name,
        kind=_kind(unit, model),
        macs=unit.macs,
        parameters=sum(stored),
        shape=model.shapes[unit.outputs[0]] if unit.outputs else (),
        formats=formats.allowed,
        follows=formats.follows,
        refused=formats.refused,
    )


def _kind(unit: Unit, model: ImportedModel) -> str:
    """Return an operation, and of convolutions and products which kind."""
    if unit.op == "Conv" and unit.weight:
        out, per_group, *kernel = model.constants[unit.weight].shape
        if per_group == 1 and model.shapes[unit.inputs[0]][1] == out != 1:
            return "Conv depthwise"
        return f"Conv {'x'.join(map(str, kernel))}"
    return "MatMul of tensors" if unit.op == "MatMul" and not unit.weight else unit.op


def _data_for(inputs: Sequence[TensorFacts]) -> tuple[str, ...]:
    """Return what data each of the inputs needs, in words."""
    lines = []
    for tensor in inputs:
        shape = "x".join(dim or "?" for dim in tensor.shape) or "one number"
        array = f"an array {tensor.name!r} of {shape} {tensor.dtype} in an .npz file"
        images = "a folder or archive of images, or " if len(inputs) == 1 and _is_image(tensor) else ""
        lines.append(f"{tensor.name}: {images}{array}")
    return tuple(lines)


def _is_image(tensor: TensorFacts) -> bool:
    """Return whether a tensor may be an image: channels first or last, and no short side."""
    shape = tensor.shape[1:] if len(tensor.shape) == 4 else tensor.shape
    readable = tensor.dtype.startswith("float") or tensor.dtype == "uint8"
    if not readable or len(shape) != 3:
        return False
    sides = ((shape[0], shape[1:]), (shape[2], shape[:2]))
    return any(
        channels.isdecimal()
        and int(channels) in _SIDES
        and all(not dim.isdecimal() or int(dim) >= _SHORTEST for dim in sizes)
        for channels, sizes in sides
    )


def _nothing(units: Sequence[InspectedUnit], operations: Mapping[str, int], device: str) -> Iterator[str]:
    """Yield that nothing can be tuned, where that is not said otherwise."""
    if not any(len(unit.formats) > 1 for unit in units) and not any(map(is_quantized, operations)):
        weighted = any(unit.parameters for unit in units)
        reason = "see the reasons above" if weighted else "no unit multiplies with stored numbers"
        yield f"nothing in it can be tuned on {device}: {reason}"


def _left(units: Sequence[InspectedUnit], operations: Mapping[str, int]) -> Iterator[str]:
    """Yield what of a file that is quantized already can still be tuned."""
    if any(map(is_quantized, operations)):
        left = [unit for unit in units if len(unit.formats) > 1]
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(unit.kind for unit in left).items())
        named = ", ".join(unit.name for unit in left[:_NAMED]) + ", ..." * (len(left) > _NAMED)
        yield f"still in fp32: {kinds} ({named})" if left else "nothing in it that could be tuned is in fp32"


def _notes(opened: OpenedModel) -> Sequence[str]:
    """Return what preparing and running a network showed."""
    notes, facts, model = [], opened.facts, opened.model
    if facts.failed:
        notes.append(f"could not be run on what it was given, or made-up numbers: {facts.failed}")
    if facts.not_finite:
        notes.append(f"gives NaN or infinity in {', '.join(facts.not_finite)} for what it was run on")
    halves = sum(np.dtype(array.dtype).itemsize == 2 for array in model.constants.values())
    if opened.outline.halves and not halves:
        notes.append(
            f"{opened.outline.halves} stored tensors have 16 bits: it is tuned in 32, and what it reads and "
            "gives stays as it is"
        )
    if halves:
        notes.append(f"{halves} of {len(model.constants)} weights and biases are stored in 16 bits")
    for name, value in model.fixed.items():
        notes.append(
            f"{name} is fixed to {value}: files that are written have this input, and do not read it"
        )
    if model.bound:
        bound = ", ".join(f"{name} = {size}" for name, size in model.bound.items())
        notes.append(f"counted and timed at {bound}; open in the files that are written")
    return notes
