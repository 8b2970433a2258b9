"""Number formats as a third party adds them: data in one file, and a line of its entry points for each."""

from hw_profiles.graph.formats import Codebook, Float, Int
from supernet.formats.activation_format import ActivationFormat
from supernet.formats.number_format import NumberFormat
from supernet.formats.quantized_tensor import Granularity
from supernet.formats.weight_format import WeightFormat

E4M3 = Float(4, 3, "nan")
LEVELS = (-1.0, -0.7, -0.52, -0.39, -0.28, -0.18, -0.09, 0.0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56, 0.72, 1.0)

INT5 = NumberFormat("int5", WeightFormat(Int(5)), ActivationFormat(Int(5, "unsigned"), "static"), on="int8")
FP8 = NumberFormat("fp8-e4m3", WeightFormat(E4M3), ActivationFormat(E4M3, "static"), on="fp8-e4m3")
CODEBOOK = NumberFormat("book4", WeightFormat(Codebook(LEVELS), Granularity(16)), None, on="fp32")
UNCOMPUTED = {
    "dynamic8": ActivationFormat(Int(8, "unsigned"), "dynamic"),
    "static16": ActivationFormat(Int(16, "unsigned"), "static"),
    "static_e3m2": ActivationFormat(Float(3, 2, "none"), "static"),
    "static_book": ActivationFormat(Codebook(LEVELS), "static"),
    "real_e4m3": ActivationFormat(E4M3, "none"),
}
globals().update(
    {
        name.upper(): NumberFormat(name, WeightFormat(Int(8)), made, on=name)
        for name, made in UNCOMPUTED.items()
    }
)

ENTRY_POINTS = {
    "int5": "tests.contracts.plugin_formats:INT5",
    "fp8-e4m3": "tests.contracts.plugin_formats:FP8",
    "book4": "tests.contracts.plugin_formats:CODEBOOK",
}
