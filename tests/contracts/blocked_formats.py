"""Number formats of weights with zero points, groups, and scales that are powers of two."""

from hw_profiles.graph.formats import E8M0, FLOAT16, Float, Int
from supernet.formats.number_format import NumberFormat
from supernet.formats.quantized_tensor import PER_CHANNEL, PER_TENSOR, Granularity
from supernet.formats.weight_format import WeightFormat

G32 = Granularity(32)
FP4, E4M3, E5M2, E3M2 = Float(2, 1, "none"), Float(4, 3, "nan"), Float(5, 2), Float(3, 2, "none")
WEIGHTS = {
    "u8": WeightFormat(Int(8, "unsigned"), PER_CHANNEL),
    "u4": WeightFormat(Int(4, "unsigned"), PER_CHANNEL),
    "u4g32": WeightFormat(Int(4, "unsigned"), G32, FLOAT16),
    "u8g32": WeightFormat(Int(8, "unsigned"), G32),
    "i4g32": WeightFormat(Int(4), G32, FLOAT16),
    "i4g48": WeightFormat(Int(4, "full"), Granularity(48)),
    "i3g16": WeightFormat(Int(3), Granularity(16)),
    "i8g16": WeightFormat(Int(8), Granularity(16)),
    "i2g32": WeightFormat(Int(2), G32),
    "i8tensor": WeightFormat(Int(8), PER_TENSOR),
    "mxfp4": WeightFormat(FP4, G32, E8M0),
    "mxfp6": WeightFormat(E3M2, G32, E8M0),
    "mxfp8": WeightFormat(E4M3, G32, E8M0),
    "mxfp8e5": WeightFormat(E5M2, G32, E8M0),
    "mxint8": WeightFormat(Int(8), G32, E8M0),
    "fp4": WeightFormat(FP4, PER_CHANNEL),
}
ENTRY_POINTS = {name: f"tests.contracts.blocked_formats:{name.upper()}" for name in WEIGHTS}
globals().update({name.upper(): NumberFormat(name, made, None, on="fp32") for name, made in WEIGHTS.items()})
