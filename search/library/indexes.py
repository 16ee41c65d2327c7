"""Where the indexes of versions live: in this process, or on a Qdrant server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from search.errors import NoSuchCollection
from search.index.contract import Store
from search.library.versions import Version

if TYPE_CHECKING:
    from pydantic import SecretStr
    from qdrant_client import QdrantClient


class Stores(Protocol):
    """How the indexes of versions are made, and what points to the served one outside."""

    def open(self, folder: Path, version: Version) -> tuple[Store, bool]:
        """The index of a version, open, and whether it is new and empty."""
        ...

    def point(self, version: Version) -> None:
        """Make the outside name lead to this version, in one step."""
        ...

    def drop(self, version: Version) -> None:
        """Remove what lies outside the folder of the version."""
        ...


class Embedded:
    """Indexes without a server: the Qdrant engine in this process. `current.json` points."""

    def open(self, folder: Path, version: Version) -> tuple[Store, bool]:
        """See `Stores.open`."""
        from search.index.embedded import EdgeStore
        from search.index.manifest import Manifest

        if Manifest.there(folder):
            return EdgeStore.open(folder, version.name, version.card), False
        return EdgeStore.create(folder, version.name, version.card, version.index), True

    def point(self, version: Version) -> None:
        """See `Stores.point`."""

    def drop(self, version: Version) -> None:
        """See `Stores.drop`."""


class OnServer:
    """Indexes on a Qdrant server, over one connection.

    Version 2 of `cells` is its collection `cells@2`, and `cells` an alias that leads to the
    served one. The service queries `cells@2` itself, so that one answer never meets two versions;
    the alias is for whoever else reads the server.
    """

    def __init__(
        self, url: str = "", api_key: str | None = None, client: QdrantClient | None = None
    ) -> None:
        self._url, self._api_key, self._client = url, api_key, client

    def open(self, folder: Path, version: Version) -> tuple[Store, bool]:
        """See `Stores.open`."""
        from search.index.server import ServerStore

        there = self._called(version)
        try:
            return ServerStore.open(self._connected(), there, version.card), False
        except NoSuchCollection:
            made = ServerStore.create(self._connected(), there, version.card, version.index)
            return made, True

    def point(self, version: Version) -> None:
        """See `Stores.point`."""
        from search.index.server import point_alias

        point_alias(self._connected(), version.name, self._called(version))

    def drop(self, version: Version) -> None:
        """See `Stores.drop`."""
        from search.index.server import drop_collections

        drop_collections(self._connected(), self._called(version))

    def _called(self, version: Version) -> str:
        return f"{version.name}@{version.id}"

    def _connected(self) -> QdrantClient:
        from search.index.server import connect

        if self._client is None:
            self._client = connect(self._url, self._api_key)
        return self._client


embedded = Embedded()


def stores_at(url: str | None, api_key: SecretStr | None) -> Stores:
    """Stores on the Qdrant server at `url`, over one connection; without one, in this process."""
    return OnServer(url, api_key.get_secret_value() if api_key else None) if url else embedded
