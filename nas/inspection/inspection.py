"""`Inspection`: what a trained model is, before anything of it is tuned."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nas.checks.model_task import TensorFacts
from supernet.imported.fixed_value import Number

FOLLOWS = "neighbours"  # in place of formats: computes on integers where its neighbours do


@dataclass(frozen=True)
class InspectedUnit:
    """One unit of a model.

    Attributes:
        name: of its first node.
        kind: its operation, and of convolutions which kind.
        macs: multiply-adds.
        parameters: stored numbers of its weight and bias.
        shape: sizes of what it gives first.
        formats: number formats that it can take on the device; none but `fp32` where it is never changed.
        follows: whether it computes on integers where its neighbours do, without being asked.
        refused: why not, by number format.
    """

    name: str
    kind: str
    macs: int
    parameters: int
    shape: tuple[int, ...]
    formats: tuple[str, ...]
    follows: bool
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Inspection:
    """What a trained model is.

    Attributes:
        model: path of the file.
        opset: of ONNX's own operators; 0 where it names none.
        producer: what wrote the file.
        size_bytes: of the file, with the weights that it keeps in others.
        inputs, outputs: what it reads and gives.
        bound: sizes of open dimensions, by name, that everything below holds for.
        operations: how many of each the file has.
        prepared: how many of each are left once constants are folded.
        macs: multiply-adds of one inference.
        parameters: stored numbers of its weights and biases.
        units: what a runtime computes as one kernel, in the order in which they run; none where dimensions
            need a size first.
        device: what formats and time are of.
        latency_s: seconds of one inference in fp32, prepared, the fastest of a few; None where it could not
            be run on made-up numbers.
        tune_s: seconds that a tune takes, by stage, estimated from that.
        needs: what a tune needs: data, sizes.
        notes: what is unusual about it.
        fixed: value of inputs that always have the same, which everything above holds for.
    """

    model: str
    opset: int
    producer: str
    size_bytes: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    bound: Mapping[str, int]
    operations: Mapping[str, int]
    prepared: Mapping[str, int]
    macs: int
    parameters: int
    units: tuple[InspectedUnit, ...]
    device: str
    latency_s: float | None
    tune_s: Mapping[str, float]
    needs: tuple[str, ...]
    notes: tuple[str, ...]
    fixed: Mapping[str, Number] = field(default_factory=dict)
