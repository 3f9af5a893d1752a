"""The seam: the only package that touches transformers' internals.

Internals are what cannot be imported from `transformers` itself, and private attributes of its
objects. `decoder` runs a model in parts, `attention` and `cache` are what the model calls instead
of transformers' own, `patches` are the changes made to a model for the time of a call, and
`plain_layer` runs common layers by our kernels.
"""
