"""Bodies that are read by hand: an image with its question, a card, a shard, each capped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from search.api.access import Reads
from search.api.problems import TooLarge
from search.schemas.questions import Question
from search.service import BadQuestion

MIB = 1024 * 1024


class Asked(BaseModel):
    """A question as it came over HTTP."""

    question: Question
    image: bytes | None


async def read_body(request: Request, what: str, cap_mb: float) -> bytes:
    """A body, refused as soon as more than the cap has come in.

    Raises:
        TooLarge: whatever Content-Length said.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > cap_mb * MIB:
            raise TooLarge(what, cap_mb)
        parts.append(part)
    return b"".join(parts)


async def asked(request: Request, service: Reads) -> Asked:
    """The question in a request: JSON, or a form with an image and the question beside it.

    Raises:
        BadQuestion: another content type, no image in the form, or a form that is damaged.
        TooLarge: over the cap, counted while it streams.
    """
    cap = service.settings.max_upload_mb
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await read_body(request, "the uploaded image", cap)
    if kind == "application/json":
        return Asked(question=Question.model_validate_json(body), image=None)
    if kind != "multipart/form-data":
        raise BadQuestion(
            "send application/json with an item or a vector, or multipart/form-data with the "
            f"fields 'image' and 'question'; got {kind or 'no content type'}"
        )
    replay = Request(request.scope, _once(body))
    try:
        form = await replay.form(max_files=1, max_fields=1, max_part_size=MIB)
    except (MultiPartException, HTTPException) as error:
        why = error.message if isinstance(error, MultiPartException) else error.detail
        raise BadQuestion(f"the form is damaged: {why}") from error
    try:
        upload, text = form.get("image"), form.get("question")
        if not isinstance(upload, UploadFile):
            raise BadQuestion("the form has no file in the field 'image'")
        text = "{}" if text is None else text
        if not isinstance(text, str):
            raise BadQuestion("the field 'question' must hold JSON text, got a file")
        return Asked(question=Question.model_validate_json(text), image=await upload.read())
    finally:
        await form.close()


def _once(body: bytes) -> Callable[[], Any]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def picture_form(picture: str, question: str) -> dict[str, Any]:
    """The schema of a form with one image and the question beside it, each described in words."""
    return {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {
                "type": "string",
                "format": "binary",
                "description": f"{picture}: JPEG, PNG, TIFF, BMP, WebP, GIF.",
            },
            "question": {"type": "string", "description": question},
        },
    }


QUESTION_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Question"},
                "example": {"item": "3f0c9c0e-8f0c-5d6e-9d53-0f3b2a3f9c11", "k": 10},
            },
            "multipart/form-data": {
                "schema": picture_form("A crop of one cell", "A Question as JSON; {} if left out.")
            },
        },
    }
}


Model = TypeVar("Model", bound=BaseModel)


async def read_question(
    request: Request, model: type[Model], field: str, most: int, cap_mb: float
) -> tuple[Model, list[bytes]]:
    """A question in JSON, or a form with images under `field` and the question beside them.

    Raises:
        BadQuestion: another content type, no image in the form, or a form that is damaged.
        TooLarge: over the cap, counted while it streams.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await read_body(request, f"the field {field!r} with the question", cap_mb)
    if kind == "application/json":
        return model.model_validate_json(body), []
    if kind != "multipart/form-data":
        raise BadQuestion(
            "send application/json, or multipart/form-data with the fields "
            f"{field!r} and 'question'; got {kind or 'no content type'}"
        )

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    replay = Request(request.scope, receive)
    try:
        form = await replay.form(max_files=most, max_fields=1, max_part_size=8 * MIB)
    except (MultiPartException, HTTPException) as error:
        why = error.message if isinstance(error, MultiPartException) else error.detail
        raise BadQuestion(f"the form is damaged: {why}") from error
    try:
        uploads = [part for part in form.getlist(field) if isinstance(part, UploadFile)]
        if not uploads:
            raise BadQuestion(f"the form has no file in the field {field!r}")
        text = form.get("question", "{}")
        if not isinstance(text, str):
            raise BadQuestion("the field 'question' must hold JSON text, got a file")
        return model.model_validate_json(text), [await upload.read() for upload in uploads]
    finally:
        await form.close()


def body_of(
    model: type[BaseModel],
    field: str,
    many: bool,
    example: dict[str, Any],
    words: str = "JPEG, PNG, TIFF, BMP, WebP or GIF; one cell each.",
) -> Any:
    """The description of such a body for the OpenAPI file."""
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    images = {"type": "array", "items": file, "minItems": 1} if many else file
    form = {
        "type": "object",
        "required": [field],
        "properties": {
            field: {**images, "description": words},
            "question": {
                "type": "string",
                "description": f"A {model.__name__} as JSON; {{}} if left out.",
            },
        },
    }
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {
        "application/json": {"schema": schema, "example": example},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}
