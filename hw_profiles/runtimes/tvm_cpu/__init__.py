"""Measures with TVM: own integer and real kernels for CPUs, compiled once per unit, linked into networks."""
