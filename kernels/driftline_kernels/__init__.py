"""The bottom floor: arrays in, arrays out.

Kernels know numpy and numba and nothing of driftline. They check nothing that their callers have
checked; each documents the shapes, dtypes and devices of its arrays.
"""
