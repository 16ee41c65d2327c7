"""The Python client of the service: typed questions in, typed answers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import httpx

from search.client.evaluations import EvaluationCalls
from search.client.library import LibraryCalls
from search.client.questions import QuestionCalls
from search.client.transport import ServiceDown, ServiceError, refusal
from search.disk.closing import Closing
from search.schemas.answers import Answer, VoteAnswer
from search.schemas.filters import Filter
from search.schemas.items import Item
from search.schemas.questions import Question, Weighting


class Client(QuestionCalls, EvaluationCalls, LibraryCalls, Closing):
    """A connection to one service.

    Args:
        url: Address of the service, for instance `http://127.0.0.1:8000`.
        api_key: Sent as `X-API-Key`, where the service wants one.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 60) -> None:
        self.url = url.rstrip("/")
        headers = {"X-API-Key": api_key} if api_key else {}
        here = httpx.URL(self.url).host in {"127.0.0.1", "localhost", "::1"}
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=timeout,
            trust_env=not here,  # a proxy of the house does not reach this machine's own service
        )

    def health(self) -> dict[str, Any]:
        """What the service says of itself."""
        found: dict[str, Any] = self._call("GET", "/health").json()
        return found

    def collections(self) -> list[dict[str, Any]]:
        """Every collection."""
        found: list[dict[str, Any]] = self._call("GET", "/v1/collections").json()
        return found

    def facets(self, collection: str, field: str, limit: int = 100) -> dict[str, int]:
        """Values of a field with their counts."""
        path = f"/v1/collections/{collection}/facets/{field}"
        found: dict[str, int] = self._call("GET", path, params={"limit": limit}).json()["values"]
        return found

    def search(self, question: Question, image: bytes | Path | None = None) -> Answer:
        """Neighbours of an image, a stored item or a vector."""
        return Answer.model_validate_json(self._ask("/v1/search", question, image).content)

    def vote(
        self,
        question: Question,
        image: bytes | Path | None = None,
        weighting: Weighting = "similarity",
        temperature: float = 0.07,
    ) -> VoteAnswer:
        """The label that the neighbours carry."""
        params = {"weighting": weighting, "temperature": temperature}
        answer = self._ask("/v1/vote", question, image, params)
        return VoteAnswer.model_validate_json(answer.content)

    def item(self, id: str, collection: str | None = None) -> Item:
        """One stored item."""
        return Item.model_validate(
            self._call("GET", f"/v1/items/{id}", params=_named(collection)).json()
        )

    def image(
        self,
        id: str,
        collection: str | None = None,
        size: Literal["thumbnail", "full"] = "thumbnail",
    ) -> bytes:
        """The picture of a stored item, as JPEG."""
        params = {**_named(collection), "size": size}
        return self._call("GET", f"/v1/items/{id}/image", params=params).content

    def similar(
        self, item: str, k: int = 10, where: Filter | None = None, collection: str | None = None
    ) -> Answer:
        """Neighbours of a stored item: the shortest way to ask."""
        return self.search(Question(item=item, k=k, where=where or Filter(), collection=collection))

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()

    def _ask(
        self,
        path: str,
        question: Question,
        image: bytes | Path | None,
        params: dict[str, Any] | None = None,
    ) -> httpx.Response:
        body = question.model_dump_json(exclude_defaults=True)
        if image is None:
            headers = {"Content-Type": "application/json"}
            return self._call("POST", path, params=params, content=body, headers=headers)
        content = image.read_bytes() if isinstance(image, Path) else image
        files = {"image": ("query", content, "application/octet-stream")}
        return self._call("POST", path, params=params, files=files, data={"question": body})

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            try:
                response = self._http.request(method, path, **request)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                if method != "GET":  # what was written may have arrived
                    raise
                # a connection that lay idle is closed by the service, maybe at this very moment
                response = self._http.request(method, path, **request)
        except httpx.TimeoutException as error:
            raise ServiceDown(self.url, "it did not answer in time") from error
        except httpx.TransportError as error:
            raise ServiceDown(self.url) from error
        if response.is_success:
            return response
        raise refusal(response)


def _named(collection: str | None) -> dict[str, str]:
    return {} if collection is None else {"collection": collection}


__all__: Sequence[str] = ["Client", "ServiceDown", "ServiceError"]
