"""HTTP transport of the client, and its errors."""

from __future__ import annotations

import httpx


class ServiceError(RuntimeError):
    """The service refused, and said why."""

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


def refusal(response: httpx.Response) -> ServiceError:
    """A refusal as an error; also for answers that are not problem+json."""
    try:
        body = response.json()
        title, detail = str(body["title"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        title, detail = response.reason_phrase, response.text[:200]
    return ServiceError(response.status_code, title, detail)
