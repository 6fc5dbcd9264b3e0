"""Numba kernels: arrays in, arrays out.

Kernels depend on numpy and numba only, not on driftline. They check nothing that their callers have
checked; each documents the shapes, dtypes and devices of its arrays. `device` determines where kernels run,
`compiling` when they are compiled, `disk_cache` where the compiled code is cached.
"""
