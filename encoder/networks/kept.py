"""Compiled networks kept on disk between runs, so that a search need not compile one again.

A file is written whole under a name of its own and then renamed, so two that write at once leave
one whole file; it opens with its own digest, so a damaged one is never run but made again.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from encoder.durable import replacing

MOST = 16
"""Most files that stay; the oldest go first."""
log = logging.getLogger(__name__)


def folder() -> Path:
    """Where they lie: `HEMASEEK_COMPILED`, else in the user's cache."""
    return Path(os.environ.get("HEMASEEK_COMPILED") or "~/.cache/hemaseek/compiled").expanduser()


def key(*facts: str) -> str:
    """A file's name, from everything that its content depends on."""
    return sha256("\0".join(facts).encode()).hexdigest()[:32]


def processor() -> str:
    """What tells processors apart that run different instructions."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:  # not Linux
        import platform

        return f"{platform.machine()} {platform.processor()}"
    lines = (
        line for line in cpuinfo.splitlines() if line.startswith(("model name", "flags", "Feat"))
    )
    return "\n".join(lines)


def read(name: str) -> tuple[str, bytes] | None:
    """What was kept under a name: a word about it, and the network; `None` if there is no such
    file or it is damaged.
    """
    try:
        digest, word, network = (folder() / name).read_bytes().split(b"\n", 2)
    except (OSError, ValueError):
        return None
    if sha256(word + b"\n" + network).hexdigest().encode() != digest:
        log.warning("%s is damaged and is made again", folder() / name)
        return None
    return word.decode(), network


def write(name: str, word: str, network: bytes) -> None:
    """Keep a network; where the folder cannot be written, nothing is kept.

    Args:
        name: What `key` gave.
        word: One word that `read` gives back, such as the precision.
        network: Compiled.
    """
    body = word.encode() + b"\n" + network
    try:
        folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(folder() / name) as file:
            file.write(sha256(body).hexdigest().encode() + b"\n" + body)
        _remove_the_oldest()
    except OSError as error:
        log.info("a compiled network is not kept in %s: %s", folder(), error)


def _remove_the_oldest() -> None:
    aged = []
    for path in folder().iterdir():
        with suppress(FileNotFoundError):  # another process removed it
            if not path.name.startswith("."):
                aged.append((path.stat().st_mtime, path))
    for _, path in sorted(aged)[:-MOST]:
        path.unlink(missing_ok=True)
