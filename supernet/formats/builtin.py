"""The number formats that come with Trilobit, of the elements of `hw_profiles.graph.formats`.

Integer weights are symmetric per output channel, integer activations unsigned per tensor: that is the one
pair that ONNX Runtime runs fast on x86. Unless a choice says otherwise, weights of fewer bits run on 8-bit
activations too.

Where the kernels for that pair saturate (`hw_profiles.reference.integer_sums`), int8 has codes of 7 bits, in
the type and at the speed of 8; `int8-exact` has all 8 everywhere, stored with a zero point of 128: unsigned
weights have other kernels.

Of matrix products there are formats that round their other operand at each inference, so that nothing has to
be calibrated: `int8-dynamic` with one scale for the whole tensor, and weights in groups of 32 or 128, whose
kernel rounds inputs group by group. Their tensors are fp32 outside of the product.
"""

from hw_profiles.graph.formats import Int
from supernet.formats.activation_format import ActivationFormat
from supernet.formats.number_format import NumberFormat, builtin, rounding_operand

FP32 = builtin("fp32", on="fp32")
FP16 = builtin("fp16", on="fp16")
INT8 = builtin("int8", on="int8")
INT8_EXACT = builtin("int8-exact", on="int8")
INT6 = builtin("int6", on="int8")
INT4 = builtin("int4", on="int8")
INT2 = builtin("int2", on="int8")


def _in_groups(name: str, group: int) -> NumberFormat:
    return rounding_operand(name, ActivationFormat(Int(8), "dynamic", group))


INT8_DYNAMIC = rounding_operand("int8-dynamic", ActivationFormat(Int(8, "unsigned"), "dynamic"))
INT8_G128 = _in_groups("int8-g128", 128)
INT4_G32 = _in_groups("int4-g32", 32)
INT4_G128 = _in_groups("int4-g128", 128)
INT2_G128 = _in_groups("int2-g128", 128)
