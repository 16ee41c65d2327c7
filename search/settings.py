"""Settings of a process: read once at its edge, and passed in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting, from `HEMASEEK_...` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="HEMASEEK_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    library: Path = Path("library")
    """Folder of the library: its collections, their shards and indexes."""
    collection: str = "cells"
    """The collection that is meant when none is named."""
    encoder: str = ""
    """The encoder for new collections; empty for the one that ships."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where encoders run."""
    preload: bool = True
    """Load the encoder of the default collection while the service starts, so that no query waits
    for it; false where only stored items are queries, and memory is short."""
    weights: Path | None = None
    """Folder with downloaded weights; empty for the user's cache."""
    data: Path | None = None
    """Folder with real images for the demo, the tests and the benchmarks."""
    qdrant_url: str | None = None
    """Address of a Qdrant server; empty to keep the index inside the process."""
    qdrant_api_key: SecretStr | None = None
    """Key of the Qdrant server."""
    host: str = "127.0.0.1"
    """Address that the service listens on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port that the service listens on."""
    page_port: Annotated[int, Field(ge=1, le=65535)] = 8501
    """Port that the page listens on."""
    service_url: str = ""
    """Address of the service for the page and the client; empty for `host` and `port`."""
    api_key: SecretStr | None = None
    """A key with every right on every collection, for the service; what the page, the client and
    the terminal send in `X-API-Key`."""
    keys: Path | None = None
    """File of the API keys that `hemaseek keys` makes; empty for `keys.json` in the library."""
    oidc_issuer: str = ""
    """Issuer of OIDC tokens that are taken beside keys, exactly as in their `iss`; empty for
    none."""
    oidc_audience: str = ""
    """What the tokens must be made for: their `aud`."""
    oidc_jwks: str = ""
    """Public keys of the issuer: an https address, or a file."""
    oidc_roles_claim: str = "roles"
    """Claim with the roles, each `ROLE` or `COLLECTION:ROLE`; a dotted name reaches inside."""
    source_folders: str = ""
    """Folders whose files the service may open again, by colons, beside those that were ingested
    from on this machine; without keys any regular file is opened."""
    rate_limit: str = "12000/minute"
    """Most calls of one key or, without keys, one address, for instance `100/second`; empty for
    no limit."""
    audit: Path | None = None
    """Folder of the audit log; empty for `audit` in the library."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """From what on the service logs, as JSON lines; `info` has a line for every call."""
    hosts: str = ""
    """Names under which the service may be called, by commas; empty for any name once keys are
    in use, and for this machine's own names without."""
    trusted_proxies: str = ""
    """Addresses of proxies whose `X-Forwarded-For` is believed, by commas; empty for none."""
    max_connections: Annotated[int, Field(ge=1, le=65535)] = 512
    """Most connections at once."""
    max_connections_per_address: Annotated[int, Field(ge=1, le=65535)] = 128
    """Most connections at once from one address; raise it behind a proxy."""
    memory_mb: Annotated[float, Field(ge=1024, le=1 << 20)] = 2048
    """Memory that the service takes at most, in MiB, whatever is uploaded; more calls than that
    wait, or are asked to come back."""
    max_upload_mb: Annotated[float, Field(gt=0, le=1024)] = 20
    """Largest uploaded image, in MiB, counted while it streams in."""
    max_shard_mb: Annotated[float, Field(gt=0, le=4096)] = 512
    """Largest shard taken from an ingest through the service, in MiB."""
    max_megapixels: Annotated[float, Field(gt=0, le=400)] = 50
    """Largest uploaded image, in millions of pixels."""
    max_call_megapixels: Annotated[float, Field(gt=0, le=100_000)] = 3000
    """All images of one call together, in millions of pixels; 3,000 take about a minute."""

    @property
    def body_bytes(self) -> int:
        """Memory for the bodies of all calls in flight."""
        return int(self.memory_mb * 2**20) // 8

    @property
    def picture_bytes(self) -> int:
        """Memory for decoded pictures of all calls; the rest is the service's own."""
        return int(self.memory_mb * 2**20 * 7) // 16

    @property
    def audit_folder(self) -> Path:
        """Where the audit log lies."""
        return self.audit or self.library / "audit"

    @property
    def url(self) -> str:
        """The address of the service."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104
        return self.service_url.rstrip("/") or f"http://{host}:{self.port}"
