"""`GET /v1/models`: which model the service serves, in OpenAI's format."""

from typing import Annotated

from fastapi import APIRouter, Depends

from galip_runtime.serve.openapi import problems
from galip_runtime.serve.problems import Problem
from galip_runtime.serve.schemas import ModelCard, ModelList
from galip_runtime.serve.service import ALIAS, Service, service_of
from galip_runtime.serve.strict import StrictRoute

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute, tags=["model"])


@router.get(
    "/v1/models",
    operation_id="models",
    summary="The model, as a list of one",
    response_description="The model",
    responses=problems(400, 401, 503),
)
async def models(service: Annotated[Service, Depends(service_of)]) -> ModelList:
    """List the model that the service serves."""
    return ModelList(data=[_card(service)])


@router.get(
    "/v1/models/{model_id}",
    operation_id="model",
    summary="The model",
    response_description="The model",
    responses=problems(400, 401, 404, 503),
)
async def model(model_id: str, service: Annotated[Service, Depends(service_of)]) -> ModelCard:
    """Describe the model `model_id`; `galip` is whichever the service serves."""
    card = _card(service)
    if model_id not in (ALIAS, card.id):
        raise Problem(404, f"there is no model {model_id!r:.80}; there is {card.id}", code="model_not_found")
    return card


def _card(service: Service) -> ModelCard:
    model = service.model
    return ModelCard(
        id=service.model_id,
        created=service.created,
        owned_by="galip",
        size=service.size,
        digest=model.digest,
        device=service.info["device"],
        precision=service.info["precision"]["generator"],
        max_images=service.max_images,
        max_steps=service.max_frames,
    )
