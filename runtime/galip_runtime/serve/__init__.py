"""The HTTP service: `galip serve`, `python -m galip_runtime.serve`, or an ASGI app for another server.

    uvicorn galip_runtime.serve:app                          # with the settings of the variable GALIP_SERVE
    gunicorn -k uvicorn_worker.UvicornWorker galip_runtime.serve:app

What needs FastAPI is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from galip_runtime.serve.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from galip_runtime.serve.app import create_app

    app: FastAPI

__all__ = ["ServeSettings", "app", "create_app"]


def __getattr__(name: str) -> Any:
    if name not in ("app", "create_app"):
        raise AttributeError(f"module 'galip_runtime.serve' has no attribute {name!r}")
    create_app = import_module("galip_runtime.serve.app").create_app
    globals().pop("app")  # the import bound the module here; the name is the ASGI app's
    globals()["create_app"] = create_app
    if name == "create_app":
        return create_app
    settings = ServeSettings.from_environment()
    import_module("galip_runtime.serve.logs").configure(settings)
    globals()["app"] = create_app(settings)
    return globals()["app"]


def __dir__() -> list[str]:
    return __all__
