"""The service with the routes of every part: what `hemaseek serve` runs."""

from __future__ import annotations

from contextlib import suppress
from ctypes import CDLL
from typing import TYPE_CHECKING

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

    try:
        from ingest.routes import deepzoom as deepzoom_routes
        from ingest.routes import finder as finder_routes
        from ingest.slides.rereading import Rereader
    except ModuleNotFoundError:
        return create_app(settings=settings)
    folders = SourceFolders.of(settings)
    reader = Rereader(folders)
    return create_app(
        settings=settings,
        read_pixels=reader,
        routers=[deepzoom_routes.deepzoom_router(reader.close, folders), finder_routes.router],
        models=finder_routes.MODELS,
        problems=[*deepzoom_routes.PROBLEMS, *finder_routes.PROBLEMS],
    )
