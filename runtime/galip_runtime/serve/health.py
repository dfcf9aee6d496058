"""Whether the service lives (`/healthz`), whether it can draw (`/readyz`), and how it does (`/metrics`)."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from galip_runtime.serve.metrics import CONTENT_TYPE
from galip_runtime.serve.openapi import problems
from galip_runtime.serve.problems import not_ready
from galip_runtime.serve.schemas import StatusAnswer
from galip_runtime.serve.service import Service, service_of

__all__ = ["router"]

router = APIRouter(tags=["service"])


@router.get(
    "/healthz",
    operation_id="healthz",
    summary="Whether the process lives",
    response_description="It does",
    responses=problems(),
)
async def healthz() -> StatusAnswer:
    """Answer; that is all."""
    return StatusAnswer(status="ok")


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Whether the service can draw",
    response_description="It can",
    responses=problems(503),
)
async def readyz(service: Annotated[Service, Depends(service_of)]) -> StatusAnswer:
    """Say yes once the model is loaded, and no while the device fails and once the service shuts down.

    Where the device has failed, each question is a reason to try it again.
    """
    if reason := service.unready():
        service.try_device()
        raise not_ready(reason)
    return StatusAnswer(status="ready")


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format",
            "content": {CONTENT_TYPE: {"schema": {"type": "string"}}},
        },
        **problems(401),
    },
)
def metrics(service: Annotated[Service, Depends(service_of)]) -> Response:  # in a thread: it may read files
    """Return latencies by phase, queue length, batch sizes and counts."""
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
