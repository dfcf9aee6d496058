"""`POST /v1/interpolations`: pictures between prompts, seeds or both, as one file."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from galip_runtime.image import check_duration, check_size, encode_animation, encode_png, grid, grid_size
from galip_runtime.interpolation import check_corners
from galip_runtime.serve.openapi import file_of, problems
from galip_runtime.serve.problems import Problem, too_many
from galip_runtime.serve.schemas import InterpolationRequest
from galip_runtime.serve.service import Service, service_of
from galip_runtime.serve.strict import StrictRoute
from galip_runtime.text_to_image import seed_series

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute, tags=["pictures"])
_SEEDS = {
    "X-Seeds": {
        "schema": {"type": "string"},
        "description": "The seeds, separated by commas.",
        "required": True,
    }
}


@router.post(
    "/v1/interpolations",
    operation_id="interpolate",
    summary="Draw pictures between prompts or seeds",
    response_class=Response,
    responses={
        200: file_of("The animation or sheet", "image/webp", "image/gif", "image/png", headers=_SEEDS),
        **problems(400, 401, 413, 415, 429, 500, 503, 504),
    },
)
async def interpolate(
    request: Request, body: InterpolationRequest, service: Annotated[Service, Depends(service_of)]
) -> Response:
    """Draw `steps` pictures of a strip, or `steps` times `steps` of a square, and return them as one file."""
    queue, seeds = service.queue, _seeds(body)
    count = _count(service, body, len(seeds))
    columns = min(body.columns or body.steps, count)
    if body.output_format == "sheet":
        _check_sheet(service, count, columns, body.gap)
    else:
        check_duration(body.output_format.upper(), count, body.frame_seconds)
    request.state.prompts = body.prompts
    work = queue.interpolate(
        body.prompts, body.steps, seeds=seeds, square=bool(body.square), truncation=body.truncation
    )
    frames = await service.draw(request, work)
    headers = {"X-Seeds": ",".join(map(str, seeds))}
    if body.output_format == "sheet":
        data = await service.in_thread(_sheet, service, body, frames, columns, seeds)
        return Response(data, headers=headers, media_type="image/png")
    kind = body.output_format
    data = await service.in_thread(encode_animation, frames, kind.upper(), body.frame_seconds, lossless=True)
    return Response(data, headers=headers, media_type=f"image/{kind}")


def _seeds(body: InterpolationRequest) -> list[int]:
    if body.seeds is None:
        return seed_series(body.seed)
    if body.seed is not None:
        raise Problem(400, "seeds takes the place of seed: leave seed out", param="seed")
    return body.seeds


def _count(service: Service, body: InterpolationRequest, seeds: int) -> int:
    """Return the number of pictures. Raises Problem for too many, and UsageError for other corners."""
    check_corners(len(body.prompts), seeds, bool(body.square))
    is_square = body.square or 4 in (len(body.prompts), seeds)
    count = body.steps**2 if is_square else body.steps
    if count > service.max_frames:
        raise too_many(count, "steps", service.max_frames)
    return count


def _check_sheet(service: Service, count: int, columns: int, gap: int) -> None:
    """Raise UsageError for a sheet that no program would open."""
    size = service.model.dimensions
    check_size("sheet.png", *grid_size(count, size.image_height, size.image_width, columns, gap))


def _sheet(
    service: Service, body: InterpolationRequest, frames: Any, columns: int, seeds: list[int]
) -> bytes:
    """Return the pictures on a sheet as the bytes of a PNG file, which says how they were made."""
    metadata = service.model.metadata(body.prompts, seeds, body.truncation)
    return encode_png(grid(frames, columns, body.gap), metadata)
