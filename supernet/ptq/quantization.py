"""`Quantization`: all that any policy of an imported model needs, found in one calibration."""

from collections.abc import Mapping
from dataclasses import dataclass

from hw_profiles.graph.formats import QuantParams
from supernet.graph.quantized_graph import Parameters
from supernet.imported.model import ImportedModel

Policy = Mapping[str, str]  # number format by unit; what is not named stays fp32


@dataclass(frozen=True)
class Compensation:
    """What one technique did to one unit or tensor.

    Attributes:
        technique: for example `bias correction`.
        where: name of the unit or of the tensor.
        format: of the weights; empty where it concerns all.
        before, after: relative squared error of the unit's output, without the technique and with it.
    """

    technique: str
    where: str
    format: str
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Quantization:
    """Scales, zero points and rounded weights of every unit in every format that it may take.

    Attributes:
        model: computes what the imported one does; its weights may be equalised or migrated.
        tensors: scale and zero point by tensor, of all that units with 8-bit activations read or give.
        parameters: rounded weight and corrected bias by (unit, format).
        compensations: what each technique bought.
    """

    model: ImportedModel
    tensors: Mapping[str, QuantParams]
    parameters: Mapping[tuple[str, str], Parameters]
    compensations: tuple[Compensation, ...] = ()
