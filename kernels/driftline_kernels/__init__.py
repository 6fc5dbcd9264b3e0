"""The bottom floor: arrays in, arrays out.

Kernels know numpy and numba and nothing of driftline. They check nothing that their callers have
checked; each documents the shapes, dtypes and devices of its arrays. `device` says where one runs,
`compiling` when it is compiled, `keeping` where that is kept.
"""
