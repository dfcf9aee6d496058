"""The shipped model's bundle, in the folder `bundle` beside this file: data, no code.

`galip_runtime.load()` finds it. `make default-bundle` writes it.
"""
