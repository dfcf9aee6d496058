"""`import galip_export` is cheap, and what it offers is there."""

import subprocess
import sys

import galip_export
import pytest

LIGHT = """
import sys
import galip_export
from galip_export import PRECISIONS
assert PRECISIONS["fp32"].relative == 1e-4
heavy = {"torch", "onnx", "onnxscript", "onnxruntime", "open_clip"} & sys.modules.keys()
assert not heavy, heavy
"""


def test_all_names_resolve():
    for name in galip_export.__all__:
        assert getattr(galip_export, name) is not None
    assert callable(galip_export.compare)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        galip_export.nothing_of_the_kind  # noqa: B018


def test_importing_it_imports_nothing_heavy():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)
