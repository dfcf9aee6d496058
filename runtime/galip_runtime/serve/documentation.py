"""`/docs`: the API to read and try, with files of the package fastapi-offline and nothing from elsewhere."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from galip_runtime.errors import ProviderUnavailable
from galip_runtime.install import install_extra

__all__ = ["files", "router"]

router = APIRouter()
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; frame-ancestors 'none'"
)
"""Swagger UI starts from a script in the page, and its icons are data: URLs."""


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """Return Swagger UI's page; its addresses are relative, so that it works behind a prefix."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="galip: the API",
        swagger_js_url="docs/files/swagger-ui-bundle.js",
        swagger_css_url="docs/files/swagger-ui.css",
        swagger_favicon_url="docs/files/favicon.png",
        swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


def files() -> Mount:
    """Return the route of Swagger UI's files. Raises ProviderUnavailable without their package."""
    package = find_spec("fastapi_offline")
    if package is None or package.origin is None:
        raise ProviderUnavailable(f"the service needs the package fastapi-offline: {install_extra('serve')}")
    return Mount("/docs/files", StaticFiles(directory=Path(package.origin).parent / "static"))
