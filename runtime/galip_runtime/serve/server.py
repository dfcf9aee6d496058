"""`run`: the service from its start, where everything that may be wrong is said first, to its orderly end."""

from importlib.util import find_spec

from galip_runtime.errors import ProviderUnavailable
from galip_runtime.install import install_extra
from galip_runtime.serve.listening import announce, bind
from galip_runtime.serve.security import KeyRing, check_exposure
from galip_runtime.serve.settings import ServeSettings

__all__ = ["run"]

_PACKAGES = ("fastapi", "fastapi_offline", "httptools", "PIL", "prometheus_client", "uvicorn")


def run(settings: ServeSettings) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code, 0.

    The first signal ends the service in order: it accepts nothing more, and what runs and waits has
    `settings.grace` seconds. A second one ends it at once, with 130. SIGHUP reads the API keys again.

    Raises UsageError for a host or port that cannot be used, FileRefused for a bundle or a file of keys,
    ProviderUnavailable where a package or the device is not available, and what `load` raises.
    """
    _check(settings)
    sockets = bind(settings)
    try:
        from galip_runtime.serve import logs

        logs.configure(settings)
        if settings.workers > 1:
            from galip_runtime.serve.supervisor import Supervisor

            return Supervisor(settings, sockets).run()
        from galip_runtime.serve.worker import serve

        return serve(settings, sockets, lambda: announce(settings, sockets))
    finally:
        for bound in sockets:
            bound.close()


def _check(settings: ServeSettings) -> None:
    """Raise what a mistake would raise later, before anything large is imported."""
    from galip_runtime.bundle.manifest import read_manifest
    from galip_runtime.shipped import read_default_manifest

    if settings.bundle is None:
        read_default_manifest()
    else:
        read_manifest(settings.bundle)
    check_exposure(settings)
    if settings.api_key_file is not None:
        KeyRing.from_file(settings.api_key_file)
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise ProviderUnavailable(
            f"the service needs packages that are not installed ({', '.join(missing)}): "
            f"{install_extra('serve')}"
        )
