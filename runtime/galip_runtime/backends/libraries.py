"""onnxruntime and OpenVINO: whether they are installed, and their import without telemetry."""

import functools
import importlib.util
import os
import sys
from types import ModuleType

from galip_runtime.errors import ProviderUnavailable
from galip_runtime.forks import Lock
from galip_runtime.install import install_extra

__all__ = [
    "backend_versions",
    "has_openvino",
    "import_onnxruntime",
    "import_openvino",
    "install_advice",
    "onnxruntime_providers",
]

_importing = Lock()


def install_advice() -> str:
    """Say what to do where nothing is installed that runs a graph."""
    return (
        f"Install exactly one of its builds: {install_extra('cpu')}; for NVIDIA {install_extra('gpu')}; for "
        f"Intel {install_extra('openvino')}. Or OpenVINO alone: {install_extra('openvino-native')}"
    )


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime. Raises ProviderUnavailable, naming the packages that install it.

    From 1.29 on, its builds report sessions to Microsoft, including names and hashes of the graphs, unless an
    environment variable switches that off before the first import. galip switches it off if the user has not
    set the variable.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderUnavailable(f"onnxruntime cannot be imported ({error}). {install_advice()}") from error
    module: ModuleType = onnxruntime
    if not hasattr(module, "InferenceSession"):  # leftovers: another build was uninstalled
        raise ProviderUnavailable(
            f"onnxruntime is installed in parts only. Uninstall all of it. {install_advice()}"
        )
    return module


@functools.cache
def has_openvino() -> bool:
    """Whether OpenVINO itself is installed, which needs no onnxruntime."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> ModuleType:
    """Import OpenVINO. Raises ProviderUnavailable where that fails.

    OpenVINO reports each import to Intel through the package `openvino_telemetry`, if that can be imported.
    galip hides the package meanwhile.
    """
    name = "openvino_telemetry"
    remedy = install_extra("openvino-native", option="--force-reinstall")
    with _importing:
        hidden = name not in sys.modules
        if hidden:
            sys.modules[name] = None  # type: ignore[assignment]  # makes its import fail
        try:
            import openvino
        except Exception as error:  # also OSError: one of its libraries may be missing
            raise ProviderUnavailable(f"OpenVINO cannot be imported ({error}): {remedy}") from error
        finally:
            if hidden:
                sys.modules.pop(name, None)
    module: ModuleType = openvino
    if not hasattr(module, "Core"):  # leftovers of an uninstalled one
        raise ProviderUnavailable(f"OpenVINO is installed in parts only: {remedy}")
    return module


def backend_versions() -> dict[str, str]:
    """Return the versions of onnxruntime and OpenVINO, as far as they are loaded."""
    loaded = {name: sys.modules.get(name) for name in ("onnxruntime", "openvino")}
    versions = {name: getattr(module, "__version__", None) for name, module in loaded.items()}
    return {name: str(version) for name, version in versions.items() if version}


def onnxruntime_providers() -> list[str]:
    """Return the providers that the installed onnxruntime was built with; none without onnxruntime."""
    try:
        providers: list[str] = import_onnxruntime().get_available_providers()
    except ProviderUnavailable:
        return []
    return providers
