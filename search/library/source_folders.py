"""The folders whose files the service may open again, whatever path an uploaded shard names."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.disk.atomic import write_durably

if TYPE_CHECKING:
    from search.settings import Settings

RECORD = "source-folders.json"


class SourceFolders:
    """Folders that the operator named, and those that were ingested from on this machine.

    Once callers have keys, the path of a stored item is only what somebody sent: its file is
    opened if it lies in one of these folders. Without keys every caller is the operator. A file
    that is no regular file is never opened.
    """

    def __init__(
        self,
        library: Path | None = None,
        named: Sequence[Path] = (),
        *,
        strict: Callable[[], bool] = lambda: False,
    ) -> None:
        """`strict` says whether callers have keys now; some may be made while a service runs."""
        self._record = None if library is None else library / RECORD
        self._named = [os.path.realpath(folder) for folder in named]
        self._strict = strict
        self._read: tuple[int, list[str]] = (0, [])

    @classmethod
    def of(cls, settings: Settings) -> SourceFolders:
        """The folders of a service with these settings."""
        from search.security.keys import Auth
        from search.security.oidc import Issuer

        named = [Path(one) for one in settings.source_folders.split(os.pathsep) if one]
        auth = Auth(settings, Issuer.of(settings))
        return cls(settings.library, named, strict=lambda: auth.configured)

    def allow(self, path: Path) -> bool:
        """Whether a file may be opened: regular, and in one of the folders where that counts."""
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return False
        except (OSError, ValueError):
            return False
        if not self._strict():
            return True
        real = os.path.realpath(path)
        return any(_inside(real, folder) for folder in (*self._named, *self._recorded()))

    def record(self, paths: Iterable[Path]) -> None:
        """Remember the folders that files were ingested from."""
        if self._record is None:
            return
        new = {os.path.realpath(path if path.is_dir() else path.parent) for path in paths}
        known = list(self._recorded())
        more = False
        for one in sorted(new):
            if not any(_inside(one, folder) for folder in known):
                known.append(one)
                more = True
        if more:
            write_durably(self._record, json.dumps(known, indent=1).encode())

    def _recorded(self) -> list[str]:
        try:
            changed = self._record.stat().st_mtime_ns if self._record else 0
        except FileNotFoundError:
            return []
        if self._record and changed != self._read[0]:
            self._read = (changed, [str(one) for one in json.loads(self._record.read_text())])
        return self._read[1]


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
