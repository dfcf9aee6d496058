"""What `/` serves: the page of the JavaScript runtime with the bundle, or a small page that needs no build.

The built page may also draw in the visitor's tab, with the files of the very bundle that the service has
loaded. Each file has a route of its own, so that nothing else of a folder can be asked for.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from galip_runtime.bundle.manifest import MANIFEST_NAME, read_manifest
from galip_runtime.errors import UsageError
from galip_runtime.serve.settings import ServeSettings

__all__ = ["SMALL_PAGE", "page_routes"]

SMALL_PAGE = Path(__file__).parent / "static"
"""The page where none was built: it draws on the service alone."""
_INDEX = "index.html"
_CONFIG = "service.json"
"""Tells a page that it is the service's; a page on a file server has one that says otherwise."""
_RESERVED = {"bundle", "docs", "metrics", "v1"}
"""Places of the service itself, where a page has no files: what is a page's file needs no key"""
_BROWSER_PRECISIONS = {"fp32", "w16a32"}
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self' 'wasm-unsafe-eval'",
    "worker-src": "'self' blob:",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "connect-src": "'self' blob:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
"""`wasm-unsafe-eval` and `blob:` workers are onnxruntime's"""
_HEADERS = {
    "Cache-Control": "no-cache",  # kept, but asked for again: a new version of galip has the same addresses
    "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in _POLICY.items()),
    "Cross-Origin-Embedder-Policy": "require-corp",  # with the next: threads in WebAssembly
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class _File:
    """A route's endpoint: one file, whose headers allow to keep it, and 304 where it is still the same."""

    path: Path

    async def __call__(self, request: Request) -> Response:
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise HTTPException(404) from error
        kind = _TYPES.get(self.path.suffix, "application/octet-stream")
        response = FileResponse(self.path, stat_result=status, media_type=kind, headers=_HEADERS)
        known = request.headers.get("If-None-Match", "")
        if response.headers["ETag"] in [tag.strip().removeprefix("W/") for tag in known.split(",")]:
            return Response(status_code=304, headers={**_HEADERS, "ETag": response.headers["ETag"]})
        return response


def page_routes(settings: ServeSettings, bundle: Path | None) -> list[Route]:
    """Return the routes of the page, its files, and the files that the manifest of `bundle` lists.

    `bundle`: the folder of the bundle that is loaded, None for a model that comes from none. Where keys are
    asked for, the bundle is not handed out, and pictures are drawn by the service alone.

    Raises UsageError for a page that is none, and FileRefused for a manifest that cannot be read.
    """
    if settings.page is not None and not (settings.page / _INDEX).is_file():
        raise UsageError(
            f"{settings.page} is no page: there is no {_INDEX}. `make web-page` builds one, and "
            "`galip export --web` writes one; without a page, the service has a small one of its own"
        )
    folder = settings.page or SMALL_PAGE
    routes: list[Route] = [
        Route("/", _endpoint(_File(folder / _INDEX))),
        Route(f"/{_CONFIG}", _config(settings, bundle)),
    ]
    files = dict(_files_of(folder))
    if settings.api_key_file is None and settings.page is not None and bundle is not None:
        listed = [MANIFEST_NAME, *read_manifest(bundle).files]
        files |= {f"bundle/{name}": bundle / name for name in listed}
    routes += [Route(f"/{name}", _endpoint(_File(path))) for name, path in files.items() if name != _CONFIG]
    return routes


def _files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the address and path of a page's files: no links, nothing hidden, nothing in a reserved place."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_link = any(parent.is_symlink() for parent in (path, *path.parents) if folder in parent.parents)
        if is_link or not path.is_file() or parts[0] in _RESERVED or any(part[0] == "." for part in parts):
            continue
        if not any(letter in "{}" for part in parts for letter in part):  # a parameter in a route
            yield str(PurePosixPath(*parts)), path


def _config(settings: ServeSettings, bundle: Path | None) -> Any:
    """Return the endpoint that tells the page who draws, and of what model."""
    manifest = None if bundle is None else read_manifest(bundle)
    config: Mapping[str, Any] = {
        "draws": "service",
        "key": settings.api_key_file is not None,
        "source": "" if manifest is None else manifest.source.sha256,
        "tab": settings.api_key_file is None
        and settings.page is not None
        and manifest is not None
        and all(_BROWSER_PRECISIONS & set(precisions) for precisions in manifest.graphs.values()),
        "steps": min(settings.max_steps, settings.queue),
    }

    async def config_endpoint(request: Request) -> Response:
        return JSONResponse(config, headers=_HEADERS)

    return config_endpoint


def _endpoint(file: _File) -> Any:
    """Return a function, which Starlette takes for an endpoint of requests rather than an ASGI app."""

    async def page_file(request: Request) -> Response:
        return await file(request)

    return page_file
