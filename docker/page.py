"""Runs the page on every address of its container; the compose file decides who reaches it."""

from __future__ import annotations

import os

from search.settings import Settings
from ui.cli.launch import page_command

command = [*page_command(Settings()), "--server.address=0.0.0.0"]
os.execv(command[0], command)  # noqa: S606 - our own command, in place of this process
