"""The instruction sets that a machine's results are kept apart by, and how AMX is masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Instructions", "measured_on"]


@dataclass(frozen=True)
class Instructions:
    """What the peers may use of a CPU."""

    key: str
    """In the name of the result's file."""
    title: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the peers' processes."""


_SETS = (
    ("amx_tile", Instructions("amx", "AMX")),
    ("avx512f", Instructions("avx512", "AVX-512")),
    ("avx2", Instructions("avx2", "AVX2")),
    ("asimd", Instructions("neon", "Neon")),
)
"""The first whose flag a CPU has is its kind."""

_MASKED = Instructions("avx512_masked", "AVX-512, AMX masked", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"})
"""As a CPU with AVX-512, VNNI and bf16. PyTorch and OpenVINO multiply with oneDNN, which obeys; the names of
OpenVINO's primitives show it. The others have no code for AMX that these graphs could reach.
"""


def measured_on(features: Sequence[str]) -> list[Instructions]:
    """Return what to measure on a CPU with `features` (`galip_runtime.hardware.cpu_features`)."""
    kind = next((found for flag, found in _SETS if flag in features), Instructions("other", "other CPU"))
    return [kind, _MASKED] if kind.key == "amx" else [kind]
