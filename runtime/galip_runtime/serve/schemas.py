"""What requests and answers look like. A field that is null counts as left out."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from galip_runtime.noise import MAX_SEED

__all__ = [
    "MAX_PROMPT",
    "ErrorAnswer",
    "GenerationAnswer",
    "GenerationRequest",
    "InterpolationRequest",
    "ModelCard",
    "ModelList",
    "PictureQuery",
    "StatusAnswer",
    "seed_for_json",
]

MAX_PROMPT = 4000
"""The most characters in a prompt: percent-encoded, it still fits into a URL."""
_EXACT = 2**53
"""Integers below this are exact in readers that have floats alone."""


def _up_to(limit: str) -> str:
    """Return a regular expression of the whole numbers from 0 to `limit`, which begins with 1, in decimal."""
    same_length = [
        f"{limit[:place]}[0-{int(digit) - 1}][0-9]{{{len(limit) - place - 1}}}"
        for place, digit in enumerate(limit)
        if place and int(digit)
    ]
    return f"0|[1-9][0-9]{{0,{len(limit) - 2}}}|{'|'.join(same_length)}|{limit}"


SEED_TEXT = f"^({_up_to(str(MAX_SEED))})$"
_DECIMAL = re.compile("0|[1-9][0-9]{0,19}")


def _seed(value: object) -> object:
    """Return a seed, an integer or the same in decimal digits, as an integer."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_SEED:
        raise ValueError(f"must be a whole number from 0 to {MAX_SEED}, or the same as text")
    return value


def seed_for_json(seed: int) -> int | str:
    """Return a seed for an answer: as text where a reader with floats alone would round it."""
    return seed if seed < _EXACT else str(seed)


def _encodable(text: str) -> str:
    """Return `text`. Raises ValueError for half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("has half of a surrogate pair, which is no character") from error
    return text


def _no(value: bool) -> bool:
    """Return `value`. Raises ValueError for True."""
    if value:
        raise ValueError("must be false: the answer comes as one")
    return value


_SEED_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "exclusiveMaximum": MAX_SEED + 1},  # exact as a float, too
        {"type": "string", "pattern": SEED_TEXT},
    ],
    "examples": [7],
}
Seed = Annotated[int, BeforeValidator(_seed), WithJsonSchema(_SEED_SCHEMA)]
TextSeed = Annotated[int, BeforeValidator(_seed), WithJsonSchema({"type": "string", "pattern": SEED_TEXT})]
No = Annotated[bool, AfterValidator(_no), WithJsonSchema({"const": False})]
"""`Literal[False]` would take 0, too"""
Prompt = Annotated[str, Field(max_length=MAX_PROMPT), AfterValidator(_encodable)]
Truncation = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
Quality = Annotated[int, Field(ge=0, le=100)]

_FIRST_SEED = "The first of `n` consecutive seeds; the one after the largest is 0. Left out: a random one."
_TRUNCATION = "Cut the noise at ± this: lower gives plainer pictures and less variety."
_NO_CHOICE = "The model has no such choice."
_QUALITY = "Quality of a JPEG or WebP, 100 the best; left out: 95. A PNG is lossless."


def _example(**body: Any) -> ConfigDict:
    """Return what a request's model adds to a strict one's: an example of the body."""
    return ConfigDict(json_schema_extra={"examples": [body]})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class GenerationRequest(_Strict):
    """Pictures of one prompt. OpenAI's fields, and `seed`, `seeds` and `truncation`."""

    model_config = _example(prompt="a red apple, flat style", n=2, seed=7)

    prompt: Annotated[Prompt, Field(description="What to draw.", examples=["a red apple, flat style"])]
    n: Annotated[int, Field(ge=1, description="How many pictures.")] | None = None
    size: Annotated[str, Field(description="`auto`, or the size of the model's pictures.")] | None = None
    model: Annotated[str, Field(description="`galip` or the model's id, as /v1/models lists it.")] | None = (
        None
    )
    response_format: (
        Annotated[
            Literal["b64_json", "url"],
            Field(description="The files in base64, or a /v1/picture address of each."),
        ]
        | None
    ) = None
    output_format: Annotated[Literal["png", "jpeg", "webp"], Field(description="Kind of file.")] | None = None
    output_compression: Annotated[Quality, Field(description=_QUALITY)] | None = None
    seed: Annotated[Seed, Field(description=_FIRST_SEED)] | None = None
    seeds: (
        Annotated[
            list[Seed],
            Field(min_length=1, description="A picture for each of these seeds, instead of `n` and `seed`."),
        ]
        | None
    ) = None
    truncation: Annotated[Truncation, Field(description=_TRUNCATION)] | None = None
    user: Annotated[str, Field(description="Ignored.")] | None = None
    quality: Annotated[Literal["auto", "standard"], Field(description=_NO_CHOICE)] | None = None
    style: Annotated[Literal["auto", "natural"], Field(description=_NO_CHOICE)] | None = None
    background: Annotated[Literal["auto", "opaque"], Field(description=_NO_CHOICE)] | None = None
    moderation: Annotated[Literal["auto", "low"], Field(description=_NO_CHOICE)] | None = None
    stream: Annotated[No, Field(description=_NO_CHOICE)] | None = None


class GeneratedPicture(BaseModel):
    """One picture: the file in base64, or its address."""

    b64_json: str | None = Field(None, description="The file, with `response_format` b64_json.")
    url: str | None = Field(None, description="The file's address, with `response_format` url.")
    seed: Annotated[int | str, WithJsonSchema(_SEED_SCHEMA)] = Field(
        description="Draws the same picture again; as text from 2^53 on."
    )


class GenerationAnswer(BaseModel):
    """The pictures, in the order of their seeds."""

    created: int = Field(description="When, in seconds since 1970.")
    data: list[GeneratedPicture]
    output_format: Literal["png", "jpeg", "webp"]
    size: str = Field(description="Width x height in pixels.", examples=["128x128"])
    model: str = Field(description="The model's id.")


class PictureQuery(BaseModel):
    """One picture; the same query is the same picture."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[Prompt, Field(description="What to draw.", examples=["a red apple, flat style"])]
    seed: TextSeed | None = Field(None, description="Left out: the answer leads to a random one.")
    truncation: Truncation | None = Field(None, description=_TRUNCATION)
    format: Literal["png", "jpeg", "webp"] = Field("png", description="Kind of file.")
    compression: Quality | None = Field(None, description=_QUALITY)


class InterpolationRequest(_Strict):
    """Pictures between prompts, seeds or both, as an animation or on a sheet.

    A strip runs between two prompts, two seeds, or two of both; a square has four prompts, four seeds, or
    four of both in its corners, or with `square` two prompts across and two seeds down.
    """

    model_config = _example(prompts=["a red apple, flat style", "a car, flat style"], steps=8, seed=7)

    prompts: Annotated[
        list[Prompt],
        Field(min_length=1, max_length=4, examples=[["a red apple, flat style", "a car, flat style"]]),
    ]
    steps: Annotated[int, Field(ge=2, description="Pictures along a side.")] = 8
    seed: Annotated[Seed, Field(description="One seed for all. Left out: a random one.")] | None = None
    seeds: (
        Annotated[
            list[Seed], Field(min_length=1, max_length=4, description="One, two or four, instead of `seed`.")
        ]
        | None
    ) = None
    square: Annotated[bool, Field(description="Two prompts across and two seeds down.")] | None = None
    truncation: Annotated[Truncation, Field(description=_TRUNCATION)] | None = None
    output_format: Annotated[
        Literal["webp", "gif", "sheet"],
        Field(description="A lossless animated WebP, an animated GIF of 256 colours, or a PNG with all."),
    ] = "webp"
    frame_seconds: Annotated[
        float, Field(ge=0.01, le=10, description="How long an animation shows each picture.")
    ] = 0.1
    columns: (
        Annotated[int, Field(ge=1, le=1000, description="Pictures in a row of a sheet; left out: `steps`.")]
        | None
    ) = None
    gap: Annotated[int, Field(ge=0, le=64, description="White pixels between pictures of a sheet.")] = 2


class ModelCard(BaseModel):
    """A model that the service serves."""

    id: str = Field(examples=["galip-0123456789ab"])
    object: Literal["model"] = "model"
    created: int = Field(description="When it was loaded, in seconds since 1970.")
    owned_by: str
    size: str = Field(description="Width x height of its pictures.", examples=["128x128"])
    digest: str | None = Field(description="The bundle's digest.")
    device: str = Field(examples=["cpu"])
    precision: str = Field(examples=["fp32"])
    max_images: int = Field(description="The most pictures in one request.")
    max_steps: int = Field(description="The most pictures in one interpolation.")


class ModelList(BaseModel):
    """The models that the service serves: one."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class StatusAnswer(BaseModel):
    """How the service is."""

    status: str


class Error(BaseModel):
    """What was wrong."""

    message: str = Field(description="For people: what was wrong and what would be right.")
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The parameter that was wrong, if it was one.")
    code: str | None = Field(description="For programs.", examples=["invalid_value"])
    id: str | None = Field(None, description="With status 500: what to look for in the service's log.")


class ErrorAnswer(BaseModel):
    """An error in OpenAI's format."""

    error: Error
