"""The tiny scale: a drawn world whose truth is known, its base model and its benchmarks.

Data and model have the formats of the real ones. A profile names the functions of this package as
dotted callables; nothing outside imports it.
"""
