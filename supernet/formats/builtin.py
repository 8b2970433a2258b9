"""The number formats that come with Trilobit, of the elements of `hw_profiles.graph.formats`.

Integer weights are symmetric per output channel, integer activations unsigned per tensor: that is the one
pair that ONNX Runtime runs fast on x86. Unless a choice says otherwise, weights of fewer bits run on 8-bit
activations too.

Where the kernels for that pair saturate (`hw_profiles.reference.integer_sums`), int8 has codes of 7 bits, in
the type and at the speed of 8; `int8-exact` has all 8 everywhere, stored with a zero point of 128: unsigned
weights have other kernels.
"""

from supernet.formats.number_format import builtin

FP32 = builtin("fp32", on="fp32")
FP16 = builtin("fp16", on="fp16")
INT8 = builtin("int8", on="int8")
INT8_EXACT = builtin("int8-exact", on="int8")
INT6 = builtin("int6", on="int8")
INT4 = builtin("int4", on="int8")
INT2 = builtin("int2", on="int8")
