"""One-off studies behind the READMEs' figures, and the tables made from them. In no wheel.

Run one from a clone, as the Makefile does: `PYTHONPATH=benchmarks python -m studies.operators …`.
"""
