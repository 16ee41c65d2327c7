"""Errors as problem+json (RFC 9457): one table from exception to status and title."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from encoder.card import CardError
from encoder.contract import EncoderError
from encoder.image import NotAnImage, TooManyPixels
from search.disk.space import DiskTrouble
from search.errors import (
    BadQuestion,
    BadVector,
    Busy,
    CannotOpen,
    NoSuchCollection,
    NoSuchItem,
    StoreBusy,
    StoreDown,
    StoreError,
    WrongEncoder,
)
from search.library.jobs import NoSuchJob
from search.library.shards import ShardError
from search.library.versions import NoSuchVersion
from search.security.keys import Forbidden, KeysError, NotAllowed
from search.text import complaints

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"
"""Seconds after which a store or an encoder that was down is worth another call."""


PATH = re.compile(r"(?<![\w)])(?:[A-Za-z]:)?(?:[\\/]|\.{1,2}[\\/])[^\s'\":;,()]+")
FILE_NAME = re.compile(
    # from the beginning of a word alone: else the time would be the square of its length
    r"(?<![^\s'\"/\\:;,()])"
    r"[^\s'\"/\\:;,()]+\.(?:jpe?g|png|tiff?|bmp|webp|gif|svs|ndpi|mrxs|scn|bif|vms|vmu|dcm|csv|tsv|json"
    r"|geojson|xml|ya?ml|txt|zip|parquet)\b",
    re.IGNORECASE,
)
SHORTEST_NAME = 4
"""A shorter name without its ending could be any word."""


class TooLarge(ValueError):
    """A body over its cap; raised while it streams in."""

    def __init__(self, what: str, cap_mb: float) -> None:
        super().__init__(f"{what} is larger than {cap_mb:g} MiB; send a smaller one")


class TooMany(RuntimeError):
    """More calls than the rate limit allows."""


class Problem(BaseModel):
    """RFC 9457, section 3.1."""

    type: str
    title: str
    status: int
    detail: str


Expected = tuple[type[Exception], int, str]
"""An error, the status that it is answered with, and a title that is the same every time."""
TABLE: tuple[Expected, ...] = (
    (WrongEncoder, 409, "Vectors of two encoders cannot be compared"),
    (NoSuchCollection, 404, "No such collection"),
    (NoSuchItem, 404, "No such item"),
    (NoSuchVersion, 404, "No such version"),
    (NoSuchJob, 404, "No such job"),
    (NotAllowed, 401, "A key is needed"),
    (Forbidden, 403, "The key does not reach that far"),
    (TooMany, 429, "Too many calls"),
    (KeysError, 503, "The keys cannot be read"),
    (TooLarge, 413, "Too large"),
    (TooManyPixels, 413, "Too many pixels"),
    (NotAnImage, 415, "Not an image"),
    (BadVector, 422, "Not a usable vector"),
    (BadQuestion, 422, "The question cannot be answered as it was put"),
    (ShardError, 422, "Not a usable shard"),
    (CardError, 422, "Not a usable encoder card"),
    (CannotOpen, 503, "The collection cannot be opened"),
    (Busy, 503, "The service is busy"),
    (StoreBusy, 503, "The store is busy"),
    (DiskTrouble, 503, "The disk does not take it"),
    (StoreDown, 503, "The store does not answer"),
    (EncoderError, 503, "The encoder cannot be used"),
    (StoreError, 422, "The store refused"),
)
"""First match wins, so the narrower comes first."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": words,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, words in {
        400: "The body cannot be read",
        401: "No key, or a wrong one",
        403: "The key does not reach that far",
        404: "No such collection or item",
        405: "Not with this method",
        409: "The encoder is not the collection's",
        413: "Too large, or too many pixels",
        415: "Not an image that is read",
        422: "The request does not fit, and why",
        429: "Too many calls; Retry-After says when to come back",
        503: "The store or the encoder is not available now; Retry-After says when to come back",
    }.items()
}
"""Every refusal that a route may give, for the OpenAPI file."""


def problem(
    status: int, title: str, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A problem as a response; in ASCII, because what came in may not be valid Unicode."""
    slug = title.lower().replace(" ", "-")
    body = Problem(type=f"urn:hemaseek:{slug}", title=title, status=status, detail=detail)
    more = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        more.setdefault("Retry-After", RETRY_AFTER)
    if status == HTTPStatus.UNAUTHORIZED:
        more.setdefault("WWW-Authenticate", "Bearer")
    return Response(json.dumps(body.model_dump()), status, more, MEDIA_TYPE)


def refusal(error: Exception, headers: Mapping[str, str] | None = None) -> Response | None:
    """An expected error as a response; `None` for one that is not in the table."""
    for kind, status, title in TABLE:
        if isinstance(error, kind):
            return problem(status, title, str(error), headers)
    return None


def add_handlers(app: FastAPI, more: Sequence[Expected] = ()) -> None:
    """Answer every expected error, and FastAPI's own, with a sentence."""

    def answer(status: int, title: str) -> Any:
        return lambda _request, error: problem(status, title, str(error))

    for kind, status, title in (*TABLE, *more):
        app.add_exception_handler(kind, answer(status, title))

    @app.exception_handler(HTTPException)
    def _http(_request: Request, error: HTTPException) -> Any:
        title = HTTPStatus(error.status_code).phrase
        headers = dict(error.headers) if error.headers else None
        return problem(error.status_code, title, str(error.detail), headers)

    @app.exception_handler(RequestValidationError)
    def _request(_request: Request, error: RequestValidationError) -> Any:
        return problem(422, "The request does not fit", complaints(error.errors()))

    @app.exception_handler(ValidationError)
    def _record(_request: Request, error: ValidationError) -> Any:
        return problem(422, "The request does not fit", complaints(error.errors()))


def without_names(text: str, path: str = "") -> str:
    """A reason without paths and names of files, which often are names of people.

    Args:
        text: The message for the operator.
        path: The file that it is about, if it is known: its name is taken out however it is spelt.
    """
    own = Path(path)
    for name in (path, own.name, own.stem if len(own.stem) >= SHORTEST_NAME else ""):
        if name:
            text = re.sub(re.escape(name), "the file", text, flags=re.IGNORECASE)
    return FILE_NAME.sub("a file", PATH.sub("a file", text))
