"""Benchmarks of GALIP bundles against eager PyTorch: latency, memory, parity."""
