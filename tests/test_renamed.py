"""Modules of galip, the exporter and the benchmark under their names of 0.1."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("galip.train.presets", "galip.train.options"),
        ("galip.data.sheet", "galip.data.contact_sheet"),
        ("galip_export.precision", "galip_export.precisions"),
        ("galip_bench.bench", "galip_bench.benchmark"),
    ],
)
def test_the_old_name_of_a_module(old, new):
    code = f"""
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import {old} as module
print(module.__name__, [str(entry.message) for entry in caught if entry.category is DeprecationWarning][:1])
"""
    call = [sys.executable, "-W", "ignore", "-c", code]
    printed = subprocess.run(call, capture_output=True, text=True, check=True, timeout=100).stdout
    assert printed.startswith(new)
    assert old in printed


@pytest.mark.parametrize("package", ["galip", "galip_export", "galip_bench"])
def test_every_alias_leads_to_a_module(package):
    code = f"""
import importlib.util, sys, {package}
from galip_runtime._renamed import RenamedModules
for finder in sys.meta_path:
    if isinstance(finder, RenamedModules):
        for old, new in finder._names.items():
            assert new.startswith("galip_runtime.") or importlib.util.find_spec(new), new
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
