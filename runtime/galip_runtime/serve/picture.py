"""`GET /v1/picture`: one picture as a file. The same query is the same picture, and caches may keep it."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from galip_runtime.serve.openapi import file_of, problems
from galip_runtime.serve.schemas import PictureQuery
from galip_runtime.serve.service import QUALITY, Service, service_of
from galip_runtime.serve.strict import StrictRoute
from galip_runtime.text_to_image import seed_series

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute, tags=["pictures"])
_YEAR = 31_536_000
_ETAG = {"ETag": {"schema": {"type": "string"}, "description": "The same for the same bytes."}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: file_of("The picture", "image/png", "image/jpeg", "image/webp", headers=_ETAG),
    304: {"description": "The picture is the one that `If-None-Match` names", "headers": _ETAG},
    307: {
        "description": "Without a seed: to the same query with a random one",
        "headers": {"Location": {"schema": {"type": "string"}}},
    },
    **problems(400, 401, 429, 500, 503, 504),
}


@router.head(
    "/v1/picture",
    operation_id="picture_headers",
    summary="The headers of a picture, which is not drawn",
    response_class=Response,
    responses={status: {**entry, "content": {}} for status, entry in _RESPONSES.items()},
)
@router.get(
    "/v1/picture",
    operation_id="picture",
    summary="Draw a picture",
    response_class=Response,
    responses=_RESPONSES,
)
async def picture(
    request: Request,
    query: Annotated[PictureQuery, Query()],
    service: Annotated[Service, Depends(service_of)],
) -> Response:
    """Draw one picture and return the file. Without a seed, lead to the query with a random one."""
    if query.seed is None:
        return _with_seed(request, query)
    request.state.prompts = [query.prompt]
    quality = None if query.format == "png" else QUALITY if query.compression is None else query.compression
    queue = service.queue
    etag = service.etag(query.prompt, query.seed, query.truncation, query.format, quality)
    visibility = "public" if service.settings.api_key_file is None else "private"
    headers = {"ETag": etag, "Cache-Control": f"{visibility}, max-age={_YEAR}, immutable"}
    if _is_known(request.headers.getlist("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    media_type = f"image/{query.format}"
    if request.method == "HEAD":
        response = Response(headers=headers, media_type=media_type)
        del response.headers["Content-Length"]  # unknown before the picture is drawn
        return response
    (drawn,) = await service.draw(
        request, queue.generate([query.prompt], [query.seed], truncation=query.truncation)
    )
    data = await service.in_thread(
        service.file, drawn, query.format, quality, query.prompt, query.seed, query.truncation
    )
    return Response(data, headers=headers, media_type=media_type)


def _with_seed(request: Request, query: PictureQuery) -> Response:
    parameters = query.model_dump(exclude_none=True) | {"seed": seed_series()[0]}
    path = request.scope.get("root_path", "") + "/v1/picture"
    return RedirectResponse(f"{path}?{urlencode(parameters)}", 307, headers={"Cache-Control": "no-store"})


def _is_known(conditions: list[str], etag: str) -> bool:
    """Return whether an `If-None-Match` header names `etag`, by weak comparison (RFC 9110, 8.8.3.2)."""
    tags = [tag.strip().removeprefix("W/") for header in conditions for tag in header.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags
