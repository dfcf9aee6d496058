"""The generator's graph alone, beside other runtimes: `python -m studies.peers NAME --bundle … --out …`.

Measures noise and sentence → image, each peer in a process of its own, by turns: PyTorch in the released
code's order, PyTorch compiled and frozen, onnxruntime, OpenVINO, MNN and ncnn on the graph without rewrites,
MNN and ncnn on galip's graph, and galip's own ways to run it. A speed means little where the picture is
a different one, so each peer's pictures are compared with those of eager PyTorch in fp32.

MNN and ncnn are not dependencies of galip. `make bench-peers` installs them in an environment of their own:

    python -m venv .venv-peers
    .venv-peers/bin/pip install MNN ncnn
    .venv-peers/bin/pip install --no-deps pnnx

pnnx converts graphs for ncnn. It is a standalone program; PyTorch is among its dependencies, but it does not
use it.
"""
