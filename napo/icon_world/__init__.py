"""The tiny scale: a drawn world whose truth is known, its base model and its benchmarks.

It makes data and a model in the formats that the real ones come in; a profile names its functions
as dotted callables, and nothing outside this package imports it.
"""
