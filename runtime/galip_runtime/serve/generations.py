"""`POST /v1/images/generations`: OpenAI's images API."""

import base64
import time
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from galip_runtime.noise import MAX_SEED
from galip_runtime.serve.openapi import problems
from galip_runtime.serve.problems import Problem, too_many
from galip_runtime.serve.schemas import GenerationAnswer, GenerationRequest, seed_for_json
from galip_runtime.serve.service import Service, service_of
from galip_runtime.serve.strict import StrictRoute
from galip_runtime.text_to_image import seed_series

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute, tags=["pictures"])


@router.post(
    "/v1/images/generations",
    operation_id="generate",
    summary="Draw pictures of a prompt",
    response_model=GenerationAnswer,
    response_description="The pictures",
    responses=problems(400, 401, 404, 413, 415, 429, 500, 503, 504),
)
async def generate(
    request: Request, body: GenerationRequest, service: Annotated[Service, Depends(service_of)]
) -> Response:
    """Draw `n` pictures of the prompt, or one for each of `seeds`. The same seed is the same picture."""
    queue, seeds = service.queue, _seeds(service, body)
    service.check_model(body.model)
    if body.size not in (None, "auto", service.size):
        raise Problem(400, f"size must be auto or {service.size}, the model's own", param="size")
    request.state.prompts = [body.prompt]
    if body.response_format == "url":
        data = [{"url": _address(request, body, seed)} for seed in seeds]
    else:
        work = queue.generate([body.prompt], seeds, truncation=body.truncation)
        pictures = await service.draw(request, work)
        data = await service.in_thread(_files, service, body, pictures, seeds)
    return JSONResponse(
        {
            "created": int(time.time()),
            "data": [{**entry, "seed": seed_for_json(seed)} for entry, seed in zip(data, seeds, strict=True)],
            "output_format": body.output_format or "png",
            "size": service.size,
            "model": service.model_id,
        }
    )


def _seeds(service: Service, body: GenerationRequest) -> list[int]:
    """Return a seed for each picture. Raises Problem for too many, and for `n` or `seed` beside `seeds`."""
    if body.seeds is None:
        count = body.n or 1
        if count > service.max_images:
            raise too_many(count, "n", service.max_images)
        if body.seed is None:
            return seed_series(None, count)
        return [(body.seed + index) % (MAX_SEED + 1) for index in range(count)]
    if body.n is not None or body.seed is not None:
        other = "seed" if body.n is None else "n"
        raise Problem(400, f"seeds takes the place of n and seed: leave {other} out", param=other)
    if len(body.seeds) > service.max_images:
        raise too_many(len(body.seeds), "seeds", service.max_images)
    return body.seeds


def _files(
    service: Service, body: GenerationRequest, pictures: Any, seeds: list[int]
) -> list[dict[str, str]]:
    """Return the pictures' files in base64."""
    kind, quality = body.output_format or "png", body.output_compression
    files = [
        service.file(picture, kind, quality, body.prompt, seed, body.truncation)
        for picture, seed in zip(pictures, seeds, strict=True)
    ]
    return [{"b64_json": base64.b64encode(file).decode("ascii")} for file in files]


def _address(request: Request, body: GenerationRequest, seed: int) -> str:
    """Return the address of a picture."""
    query: dict[str, Any] = {"prompt": body.prompt, "seed": seed}
    if body.truncation is not None:
        query["truncation"] = body.truncation
    query["format"] = body.output_format or "png"
    if body.output_compression is not None and query["format"] != "png":
        query["compression"] = body.output_compression
    return f"{str(request.base_url).rstrip('/')}/v1/picture?{urlencode(query)}"
