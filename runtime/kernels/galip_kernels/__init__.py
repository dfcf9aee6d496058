"""Where the compiled library of galip-kernels is.

galip-runtime loads it with ctypes; `galip_kernels.h`, beside the library, describes its functions for C.
"""

import sys
from pathlib import Path

__all__ = ["LIBRARY", "__version__"]

__version__ = "0.1.0"

_NAMES = {"win32": "galip_kernels.dll", "darwin": "libgalip_kernels.dylib"}

LIBRARY = Path(__file__).with_name(_NAMES.get(sys.platform, "libgalip_kernels.so"))
"""the shared library"""
