"""Where the terminal's answers come from: the running service, or the library opened here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from search.client.client import Client
from search.client.transport import ServiceDown

if TYPE_CHECKING:
    from search.schemas.answers import Answer, VoteAnswer
    from search.schemas.questions import Question, Weighting
    from search.service import Service
    from search.settings import Settings


class Answers(Protocol):
    """What both the service and its client can do."""

    def search(self, question: Question, image: bytes | None = None) -> Answer:
        """The neighbours of a query."""
        ...

    def vote(
        self,
        question: Question,
        image: bytes | None = None,
        weighting: Weighting = "similarity",
        temperature: float = 0.07,
    ) -> VoteAnswer:
        """The label that the neighbours carry."""
        ...

    def thumbnail(self, id: str, collection: str | None = None) -> bytes:
        """The JPEG of a stored item."""
        ...


class Remote:
    """A client with the face of the service."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.search = client.search
        self.vote = client.vote

    def thumbnail(self, id: str, collection: str | None = None) -> bytes:
        """The JPEG of a stored item."""
        return self.client.image(id, collection)


def running_service(settings: Settings) -> Client | None:
    """A client of the service that owns the library, if one does and answers."""
    url = settings.service_url
    note = settings.library / "service.json"
    if not url and note.exists():
        try:
            url = json.loads(note.read_text())["url"]
        except (ValueError, KeyError, TypeError):
            return None  # the note is rewritten by the next service
    if not url:
        return None
    key = settings.api_key
    client = Client(url, key.get_secret_value() if key else None)
    try:
        client.health()
    except ServiceDown:
        client.close()
        if settings.service_url:
            raise
        return None
    return client


@contextmanager
def serving(settings: Settings) -> Iterator[Client | Service]:
    """The running service if there is one; else the library, opened for as long as needed."""
    client = running_service(settings)
    if client is not None:
        with client:
            yield client
        return
    from search.service import Service

    service = Service.open(settings)
    try:
        yield service
    finally:
        service.close()


@contextmanager
def answers(settings: Settings) -> Iterator[Answers]:
    """What answers searches and votes, with one face for the client and the service."""
    with serving(settings) as backend:
        yield Remote(backend) if isinstance(backend, Client) else backend
