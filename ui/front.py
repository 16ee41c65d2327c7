"""What the page's own server answers beside the page: tiles, thumbnails, and the viewer's script.

The browser speaks to one address only. Tiles come through here with the page's key, so the
service may lie where the browser does not reach it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from search.client.client import Client
from search.client.transport import ServiceDown, ServiceError
from search.settings import Settings

HERE = Path(__file__).parent
VIEWER = HERE / "widgets" / "openseadragon.min.js"
"""OpenSeadragon 6.1.1, BSD-3-Clause; its licence lies beside it."""
FOR_EVER = {"Cache-Control": "private, max-age=86400, immutable"}
_clients: list[Client] = []


def _client() -> Client:
    if not _clients:
        settings = Settings()
        key = settings.api_key
        _clients.append(Client(settings.url, key.get_secret_value() if key else None))
    return _clients[0]


async def tile(request: Request) -> Response:
    """One tile of a stored source, or the refusal of the service in words."""
    at = request.path_params
    place = (at["source"], at["collection"], at["level"], at["column"], at["row"])
    return await _picture(partial(_client().tile, *place))


async def thumbnail(request: Request) -> Response:
    """The small picture of a stored item, or the refusal of the service in words."""
    at = request.path_params
    return await _picture(partial(_client().image, at["item"], at["collection"]))


async def _picture(read: Callable[[], bytes]) -> Response:
    try:
        content = await run_in_threadpool(read)
    except ServiceError as error:
        return PlainTextResponse(str(error), error.status)
    except ServiceDown as error:
        return PlainTextResponse(str(error), 503)
    return Response(content, media_type="image/jpeg", headers=FOR_EVER)


async def viewer(_: Request) -> Response:
    """The script of the viewer."""
    return FileResponse(VIEWER, media_type="text/javascript", headers=FOR_EVER)


app = st.App(
    HERE / "app.py",
    routes=[
        Route("/hemaseek/viewer-6.1.1.js", viewer),
        Route(
            "/hemaseek/tiles/{collection}/{source}/{level:int}/{column:int}_{row:int}.jpeg", tile
        ),
        Route("/hemaseek/thumbnails/{collection}/{item}.jpeg", thumbnail),
    ],
)
