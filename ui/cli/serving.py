"""The service with the routes of every part, and how it and the page are started as processes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from ctypes import CDLL
from pathlib import Path
from typing import TYPE_CHECKING

from ui.look.theme import OPTIONS

if TYPE_CHECKING:
    from fastapi import FastAPI

    from search.settings import Settings


M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Numbers of glibc's `mallopt`."""


def return_freed_memory() -> None:
    """Let glibc give large blocks back to the system when they are freed, from every thread.

    It else raises its own threshold with the first large block and keeps those that come later:
    with forty threads that decode pictures in turn, gigabytes.
    """
    with suppress(OSError, AttributeError):  # another C library
        libc = CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 20)
        libc.mallopt(M_ARENA_MAX, 4)


def application(settings: Settings) -> FastAPI:
    """The application with the routers of the parts above `search`.

    Where the ingest part is not installed (no slide reader), it answers without its routes.
    """
    from search.api.app import create_app
    from search.library.source_folders import SourceFolders
    from search.service import FromAbove
    from train.mil import routes as training

    try:
        from ingest.routes import case_models as case_model_routes
        from ingest.routes import case_slides as case_slide_routes
        from ingest.routes import deepzoom as deepzoom_routes
        from ingest.routes import finder as finder_routes
        from ingest.slides.rereading import Rereader
        from ingest.smears.finders import scale_of_picture
    except ModuleNotFoundError:
        return create_app(settings=settings, routers=[training.router], problems=training.PROBLEMS)
    folders = SourceFolders.of(settings)
    reader = Rereader(folders)
    return create_app(
        settings=settings,
        above=FromAbove(reader, scale_of_picture),
        routers=[
            deepzoom_routes.deepzoom_router(reader.close, folders),
            finder_routes.router,
            case_model_routes.router,
            case_slide_routes.router,
            training.router,
        ],
        models=finder_routes.MODELS,
        problems=[*deepzoom_routes.PROBLEMS, *finder_routes.PROBLEMS, *training.PROBLEMS],
    )


def page_command(settings: Settings, address: str = "127.0.0.1") -> list[str]:
    """The command that runs the page, listening on an address of this machine."""
    options = {
        **OPTIONS,
        "server.port": str(settings.page_port),
        "server.address": address,
        "server.maxUploadSize": str(int(settings.max_upload_mb)),
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    app = Path(__file__).parents[1] / "front.py"
    return [sys.executable, "-m", "streamlit", "run", str(app), *flags]


def page_environment(settings: Settings) -> dict[str, str]:
    """The environment of the page: where its service is, and the library that it imports into."""
    return {
        **os.environ,
        "HEMASEEK_SERVICE_URL": settings.url,
        "HEMASEEK_LIBRARY": str(settings.library.absolute()),
    }


def service_command(settings: Settings) -> list[str]:
    """The command that runs the service."""
    return [
        *(sys.executable, "-m", "ui", "serve"),
        *("--library", str(settings.library), "--collection", settings.collection),
        *("--host", settings.host, "--port", str(settings.port)),
    ]
