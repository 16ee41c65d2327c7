"""HTTP transport of the client, and its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, TypeAdapter

from search.disk.closing import Closing

Model = TypeVar("Model", bound=BaseModel)


class ServiceError(RuntimeError):
    """The service refused; the message is its reason."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail


class ServiceDown(RuntimeError):
    """Nobody answers at the service's address."""

    def __init__(self, url: str, why: str = "") -> None:
        reason = f" ({why})" if why else ""
        super().__init__(f"no service answers at {url}{reason}; start it with `hemaseek serve`")
        self.url = url


class Transport(Closing):
    """A connection to one service.

    Every call raises `ServiceError` where the service refuses, and `ServiceDown` where nothing
    answers.

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

    def close(self) -> None:
        """Drop the connection."""
        self._http.close()

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

    def _get(self, model: type[Model], path: str, **request: Any) -> Model:
        return model.model_validate_json(self._call("GET", path, **request).content)

    def _list(self, model: type[Model], path: str, **request: Any) -> list[Model]:
        content = self._call("GET", path, **request).content
        return TypeAdapter(list[model]).validate_json(content)  # type: ignore[valid-type]

    def _post(
        self,
        model: type[Model],
        path: str,
        body: BaseModel | None = None,
        files: Sequence[tuple[str, bytes | Path]] = (),
        **request: Any,
    ) -> Model:
        """Send a body as JSON, or as the field `question` of a form with files beside it.

        Args:
            model: Of the answer.
            path: Of the route.
            body: What is sent; fields at their defaults are left out.
            files: Form field and content of each.
            request: More for `httpx`: `params`, `timeout`.
        """
        text = "{}" if body is None else body.model_dump_json(exclude_defaults=True)
        if files:
            request["data"] = {"question": text}
            request["files"] = [
                (field, (f"{field}-{at}", content_of(one), "application/octet-stream"))
                for at, (field, one) in enumerate(files)
            ]
        elif body is not None:
            request["content"] = text
            request["headers"] = {"Content-Type": "application/json"}
        return model.model_validate_json(self._call("POST", path, **request).content)


def given(**params: Any) -> Mapping[str, Any]:
    """Parameters without those that are `None`."""
    return {name: value for name, value in params.items() if value is not None}


def content_of(file: bytes | Path) -> bytes:
    """The bytes of a file, or these bytes."""
    return file.read_bytes() if isinstance(file, Path) else file


def refusal(response: httpx.Response) -> ServiceError:
    """A refusal as an error; also for answers that are not problem+json."""
    try:
        body = response.json()
        title, detail = str(body["title"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        title, detail = response.reason_phrase, response.text[:200]
    return ServiceError(response.status_code, title, detail)
