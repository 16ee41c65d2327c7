"""The service with the routes of every part: what `hemaseek serve` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from search.settings import Settings


def application(settings: Settings) -> FastAPI:
    """The application; parts above `search` hand their routers in here."""
    from search.api import create_app

    return create_app(settings=settings)
