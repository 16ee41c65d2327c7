"""The Python client of the service: typed questions in, typed answers out."""

from __future__ import annotations

from collections.abc import Sequence

from search.client.evaluations import EvaluationCalls
from search.client.library import LibraryCalls
from search.client.models import ModelCalls
from search.client.questions import QuestionCalls
from search.client.transport import ServiceDown, ServiceError
from search.schemas.collections import Health


class Client(QuestionCalls, EvaluationCalls, ModelCalls, LibraryCalls):
    """A connection to one service; see `search.client.transport.Transport`."""

    def health(self) -> Health:
        """Whether the service can answer, and with which encoder."""
        return self._get(Health, "/health")


__all__: Sequence[str] = ["Client", "ServiceDown", "ServiceError"]
