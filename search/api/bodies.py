"""Bodies that are read by hand: a question with its images, a card, a shard, each capped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Request, Security
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

from search.api.access import Access, reads
from search.api.problems import TooLarge
from search.errors import BadQuestion
from search.query.context import Context
from search.query.pictures import BodyMemory

MIB = 1024 * 1024
COPIES = 3
"""Of a body that is read by hand: as it came, as a form, and as what the form holds."""
IMAGES = "JPEG, PNG, TIFF, BMP, WebP or GIF; one cell each."

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Posted(Generic[Model]):
    """A question as it came over HTTP, on a collection that the caller may ask."""

    context: Context
    question: Model
    images: list[bytes]
    """What was uploaded with it."""
    beside: Context | None = None
    """The other collection that the question names (`fuse_with`), which the caller may ask too."""

    @property
    def image(self) -> bytes | None:
        """The image, where at most one is taken."""
        return self.images[0] if self.images else None


def posted(
    model: type[Model],
    field: str = "image",
    most: int = 1,
    access: Callable[..., Awaitable[Access]] = reads,
) -> Callable[..., Awaitable[Posted[Model]]]:
    """A dependency that reads a question, begins its audit line, and opens its collection.

    Args:
        model: Of the question.
        field: The form field of what is uploaded: one `image`, capped by `max_upload_mb`; or
            something larger, capped by `max_shard_mb`.
        most: Uploads that are taken.
        access: `reads` or `writes` of `search.api.access`: what the route needs.
    """
    checked = Security(access)

    async def read(request: Request, access: Access = checked) -> Posted[Model]:
        settings = access.settings
        cap = settings.max_upload_mb if field == "image" else settings.max_shard_mb
        question, images = await read_question(request, model, field, most, cap)
        if hasattr(question, "k"):
            access.note(query=_kind(question, images, field), k=question.k)
        if hasattr(question, "exclude"):
            note_filters(access, question)
        name = request.path_params.get("name") or getattr(question, "collection", None)
        other = getattr(question, "fuse_with", None)
        context = await run_in_threadpool(access.context, name)
        beside = None if other is None else await run_in_threadpool(access.context, other)
        if beside is not None:  # the last that was opened is in the audit line by itself
            access.note(collection=context.collection.name, beside=beside.collection.name)
        return Posted(context, question, images, beside)

    return read


def note_filters(access: Access, question: Any) -> None:
    """Write into the audit line which conditions a question has: names of fields, no values."""
    access.note(
        where=sorted(question.where.model_fields_set),
        exclude=sorted({*question.exclude, *question.not_these.model_fields_set}),
    )


def _kind(question: BaseModel, images: Sequence[bytes], field: str) -> str:
    if getattr(question, "case", None):
        return "case"
    if images:
        return field
    if field == "images":
        return "items"
    return "item" if getattr(question, "item", None) else "vector"


async def read_body(request: Request, what: str, cap_mb: float) -> bytes:
    """A body, refused as soon as more than the cap has come in.

    Raises:
        TooLarge: whatever Content-Length claims; Busy: no memory for it now.
    """
    parts: list[bytes] = []
    size = 0
    memory: BodyMemory = request.state.memory
    async for part in request.stream():
        size += len(part)
        if size > cap_mb * MIB:
            raise TooLarge(what, cap_mb)
        memory.take(COPIES * len(part))
        parts.append(part)
    return b"".join(parts)


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


def form_of(field: str, model: str, words: str, *, many: bool = False) -> dict[str, Any]:
    """The schema of a form with one file, or many, and a question beside them.

    Args:
        field: Of the file.
        model: Name of the question's model.
        words: What the file is.
        many: Whether several are taken.
    """
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": file, "minItems": 1} if many else file
    question = {"type": "string", "description": f"A {model} as JSON; {{}} if left out."}
    return {
        "type": "object",
        "required": [field],
        "properties": {field: {**files, "description": words}, "question": question},
    }


def body_of(
    model: type[BaseModel],
    example: dict[str, Any],
    field: str = "image",
    words: str = IMAGES,
    *,
    many: bool = False,
) -> dict[str, Any]:
    """The description of a question in JSON or in a form, for the OpenAPI file; see `form_of`."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {
        "application/json": {"schema": schema, "example": example},
        "multipart/form-data": {"schema": form_of(field, model.__name__, words, many=many)},
    }
    return {"requestBody": {"required": True, "content": content}}
