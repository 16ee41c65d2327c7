"""How the page and the service are started as processes of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ui.look.theme import OPTIONS

if TYPE_CHECKING:
    from search.settings import Settings


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
    """The environment of the page: where its service is."""
    return {**os.environ, "HEMASEEK_SERVICE_URL": settings.url}


def service_command(settings: Settings) -> list[str]:
    """The command that runs the service."""
    return [
        *(sys.executable, "-m", "ui", "serve"),
        *("--library", str(settings.library), "--collection", settings.collection),
        *("--host", settings.host, "--port", str(settings.port)),
    ]
