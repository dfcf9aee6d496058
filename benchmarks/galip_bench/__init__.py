"""Benchmarks of GALIP bundles against eager PyTorch: latency, memory, parity, FID.

from galip_bench import BenchConfig, run

report = run(BenchConfig(bundle="demo/bundle", batch=(1, 8)))
report.subjects["bundle-cpu-fp32"].latency["1"].ratio
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from galip_runtime._renamed import RenamedModules

if TYPE_CHECKING:
    from galip_bench.benchmark import run
    from galip_bench.config import BenchConfig
    from galip_bench.report import Report, read_report

__all__ = ["BenchConfig", "Report", "read_report", "run"]

_HOMES = {"BenchConfig": "config", "Report": "report", "read_report": "report", "run": "benchmark"}


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: a process that runs a bundle must not import PyTorch."""
    if name in _HOMES:
        return getattr(import_module(f"galip_bench.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.meta_path.append(
    RenamedModules(
        {
            "galip_bench.bench": "galip_bench.benchmark",
            "galip_bench.fresh": "galip_bench.cold_start",
            "galip_bench.html": "galip_bench.html_report",
            "galip_bench.launch": "galip_bench.latency_worker",
            "galip_bench.summary": "galip_bench.statistics",
        }
    )
)
