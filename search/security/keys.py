"""Who calls: API keys that are stored hashed, and the role each has on each collection."""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from search.disk.atomic import write_durably
from search.disk.lock import wait_for_lock

if TYPE_CHECKING:
    from search.settings import Settings

Role = Literal["read", "write", "admin"]
ROLES: tuple[Role, ...] = ("read", "write", "admin")
"""Rising: whoever may write may read, whoever is admin may do both."""
EVERY = "*"
"""Stands for every collection, those to come included."""
PREFIX = "hk"
KEY = re.compile(rf"{PREFIX}_([a-z0-9]{{8}})_([A-Za-z0-9_-]{{43}})")
"""A key: what it is, its id, and 256 random bits."""
COLLECTION = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class NotAllowed(PermissionError):
    """A call without a usable key."""


class Forbidden(PermissionError):
    """A call with a key that does not reach that far."""


class KeysError(ValueError):
    """Keys that cannot be kept or read; every call is refused until that is mended."""


@dataclass(frozen=True)
class Caller:
    """Who calls, and what they may do."""

    id: str
    """Of the key, or of the person: what the audit log calls them."""
    roles: Mapping[str, Role]
    """Role by collection; `*` stands for every one."""

    def may(self, role: Role, collection: str) -> bool:
        """Whether the caller has at least this role on a collection."""
        roles = [self.roles[name] for name in (EVERY, collection) if name in self.roles]
        return any(ROLES.index(one) >= ROLES.index(role) for one in roles)

    def may_anywhere(self, role: Role) -> bool:
        """Whether the caller has at least this role on any collection."""
        return any(ROLES.index(one) >= ROLES.index(role) for one in self.roles.values())


ANYONE = Caller("open", {EVERY: "admin"})
"""Whoever reaches a service without keys on a loopback address."""


@dataclass(frozen=True)
class Key:
    """One key, without the key itself."""

    id: str
    name: str
    """What the operator calls it: a person, a machine, a purpose."""
    hash: str
    """SHA-256 of the secret part: with 256 random bits, a slow hash would add nothing."""
    roles: dict[str, Role]
    """Role by collection; `*` stands for every one."""
    made: str
    """When, in UTC."""
    revoked: str | None = None
    """When it was taken back; it is kept, so that the audit log stays readable."""


def parse_roles(texts: list[str]) -> dict[str, Role]:
    """Roles as they are written: `read` for every collection, `cells:write` for one.

    Raises:
        KeysError: no such role, or nothing that can be a collection.
    """
    found: dict[str, Role] = {}
    for text in texts:
        name, colon, role = text.rpartition(":")
        name = name if colon else EVERY
        if role not in ROLES or not (name == EVERY or COLLECTION.fullmatch(name)):
            raise KeysError(
                f"expected ROLE or COLLECTION:ROLE with a role of {', '.join(ROLES)}; got {text!r}"
            )
        found[name] = role
    if not found:
        raise KeysError("a key needs a role: `read`, or `cells:write` for one collection")
    return found


class Keys:
    """The keys of a service, in one file that may change while the service runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    def all(self) -> list[Key]:
        """Every key, revoked ones included, oldest first.

        Raises:
            KeysError: the file is damaged.
        """
        return list(self._read().values())

    def add(self, name: str, roles: dict[str, Role]) -> tuple[Key, str]:
        """A new key, and its text: shown once, kept nowhere."""
        id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        key = Key(id, name, _hash(secret), dict(roles), made)
        with self._changing() as keys:
            keys[id] = key
        return key, f"{PREFIX}_{id}_{secret}"

    def revoke(self, id: str) -> Key:
        """Take a key back; a running service refuses it from its next call on.

        Raises:
            KeysError: no such key.
        """
        with self._changing() as keys:
            if id not in keys:
                raise KeysError(f"no key {id!r} in {self.path}; `hemaseek keys list` shows them")
            if keys[id].revoked is None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                keys[id] = replace(keys[id], revoked=now)
            return keys[id]

    def find(self, text: str) -> Key | None:
        """The key that a text is; `None` if it is none of them, or was revoked."""
        parts = KEY.fullmatch(text)
        key = self._read().get(parts[1]) if parts else None
        if parts is None or key is None or key.revoked is not None:
            return None
        return key if hmac.compare_digest(key.hash, _hash(parts[2])) else None

    def _read(self) -> dict[str, Key]:
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return self._keys
        seen = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        if seen != self._seen:
            try:
                found = json.loads(self.path.read_bytes())["keys"]
                keys = {one["id"]: Key(**one) for one in found}
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise KeysError(
                    f"the keys in {self.path} cannot be read ({error}); restore the file"
                ) from error
            self._keys, self._seen = keys, seen
        return self._keys

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(self.path.with_suffix(".lock")):
            keys = dict(self._read())
            yield keys
            text = {"format": 1, "keys": [asdict(key) for key in keys.values()]}
            write_durably(self.path, json.dumps(text, indent=2).encode())
            self.path.chmod(0o600)


class Tokens(Protocol):
    """What turns a signed token into a caller."""

    def caller(self, token: str) -> Caller:
        """Who a token speaks for; `NotAllowed` if it is not to be believed."""
        ...


class Auth:
    """Decides who calls, from the headers of a request."""

    def __init__(self, settings: Settings, tokens: Tokens | None = None) -> None:
        self.keys = Keys(settings.keys or settings.library / "keys.json")
        self.tokens = tokens
        self._master = settings.api_key.get_secret_value() if settings.api_key else None
        self._host = settings.host
        self._hosts = {name.strip().lower() for name in settings.hosts.split(",") if name.strip()}
        self._loopback = is_loopback(settings.host)

    @property
    def configured(self) -> bool:
        """Whether any key or token is configured."""
        return bool(self._master or self.tokens or self.keys.all())

    def slow(self, headers: Mapping[str, str]) -> bool:
        """Whether `identify` may call the issuer of tokens over the network."""
        return self.tokens is not None and _came(headers).count(".") == 2

    def identify(self, headers: Mapping[str, str]) -> Caller:
        """Who calls.

        Args:
            headers: Of the request, names in lower case.

        Raises:
            NotAllowed: an unknown caller; or no keys are configured and the service is
                reached from outside.
            KeysError: the keys cannot be read.
        """
        came = _came(headers)
        configured = self.configured
        if self._hosts and not self._known(headers.get("host", "")):
            raise NotAllowed("the service is not called by a name that HEMASEEK_HOSTS lists")
        if not configured:
            return self._open(headers)
        if not came:
            raise NotAllowed("this service wants its key in the header X-API-Key")
        if self._master and hmac.compare_digest(came.encode(), self._master.encode()):
            return Caller("settings", {EVERY: "admin"})
        key = self.keys.find(came)
        if key is not None:
            return Caller(key.id, key.roles)
        if self.tokens is not None and came.count(".") == 2:
            return self.tokens.caller(came)
        raise NotAllowed("the key in X-API-Key is not known here, or was revoked")

    def _known(self, host: str) -> bool:
        name = _name_of(host)
        return is_loopback(name) or name in {self._host, *self._hosts}

    def _open(self, headers: Mapping[str, str]) -> Caller:
        """Anyone on this machine; but no page of another origin in a browser on it."""
        if not self._loopback:
            raise NotAllowed(
                f"this service listens on {self._host} and has no keys, so it answers nobody; "
                "make one with `hemaseek keys add NAME --role read`"
            )
        host = headers.get("host", "")
        if not self._known(host):
            raise NotAllowed(
                "a service without keys answers only to the name of this machine, or to one that "
                "HEMASEEK_HOSTS lists"
            )
        origin = headers.get("origin")
        if headers.get("sec-fetch-site") == "cross-site" or (
            origin is not None and origin.partition("://")[2] != host
        ):
            raise NotAllowed("a service without keys answers no page of another origin")
        return ANYONE


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    return (host if host.endswith("]") else host.rsplit(":", 1)[0]).lower()


def is_loopback(host: str) -> bool:
    """Whether an address or name is that of this machine itself."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _came(headers: Mapping[str, str]) -> str:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (bearer.strip() if scheme.lower() == "bearer" else "")


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
