"""`create_app`: the service as an ASGI app."""

import asyncio
import functools
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import galip_runtime
from galip_runtime.serve import documentation, generations, health, interpolations, models, picture
from galip_runtime.serve.middleware import Admission, Envelope, HostCheck, KeyCheck, Limits
from galip_runtime.serve.openapi import describe
from galip_runtime.serve.page import page_routes
from galip_runtime.serve.problems import add_handlers
from galip_runtime.serve.security import KeyRing
from galip_runtime.serve.service import Service, load_model
from galip_runtime.serve.settings import ServeSettings
from galip_runtime.shipped import default_bundle
from galip_runtime.text_to_image import TextToImage

__all__ = ["create_app"]


def create_app(settings: ServeSettings, model: TextToImage | None = None) -> FastAPI:
    """Return the service as an ASGI app; its lifespan has to run.

    `model`: what to serve; None to load the bundle of the settings when the app starts, and to close it when
    the app stops. `app.state.service.draining = True` lets `/readyz` say no and connections end with their
    next answer; `app.state.keys` is the KeyRing, or None. Raises ProviderUnavailable for a missing package
    and FileRefused for the file of keys.
    """
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        served = await asyncio.to_thread(load_model, settings) if model is None else model
        service.start(served)
        try:
            yield
        finally:
            await service.stop()
            if model is None:
                served.close()

    app = FastAPI(
        title="galip",
        version=galip_runtime.__version__,
        description="Pictures from prompts.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.keys = KeyRing.from_file(settings.api_key_file) if settings.api_key_file else None
    for module in (generations, picture, interpolations, models, health, documentation):
        app.include_router(module.router)
    page = page_routes(settings, _bundle_of(settings, model))
    app.router.routes += [documentation.files(), *page]
    app.openapi = functools.partial(_description, app, service)  # type: ignore[method-assign]
    add_handlers(app)
    _add_middleware(app, service, {route.path for route in page})
    return app


def _bundle_of(settings: ServeSettings, model: TextToImage | None) -> Path | None:
    """Return the folder of the bundle that is served; None for a model that comes from none."""
    if model is None:
        return settings.bundle or default_bundle()
    return None if model.digest is None else Path(model.info()["path"])


def _description(app: FastAPI, service: Service) -> dict[str, Any]:
    """Return the OpenAPI document, made once the model is there."""
    if app.openapi_schema is None or not service.has_started:
        app.openapi_schema = describe(app, service)
    return app.openapi_schema


def _add_middleware(app: FastAPI, service: Service, page: Set[str]) -> None:
    """Add what every request passes, the innermost first. `page`: the paths of the page's files."""
    settings = service.settings
    app.add_middleware(Limits, settings=settings)
    app.add_middleware(Admission, service=service)
    if app.state.keys is not None:
        app.add_middleware(KeyCheck, keys=app.state.keys, is_page=page.__contains__)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After", "ETag"],
        )
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(Envelope, service=service)
