"""People who come with a token of an OIDC issuer instead of a key."""

from __future__ import annotations

import json
import re
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from search.security.keys import Caller, KeysError, NotAllowed, Role, is_loopback, parse_roles

if TYPE_CHECKING:
    from jwt import PyJWK

    from search.settings import Settings

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
"""Signatures with a public key only: a secret shared with the issuer would let us forge."""
LEEWAY_SECONDS = 30
FRESH_SECONDS = 3600
"""How long fetched keys are believed; an unknown key id fetches again, at most this often:"""
ASK_AGAIN_SECONDS = 30
MOST_BYTES = 1024 * 1024
SUBJECT = re.compile(r"[A-Za-z0-9_.@|:-]{1,128}")


class Issuer:
    """Checks tokens against the public keys of one issuer.

    Args:
        issuer: The `iss` of its tokens.
        audience: The `aud` that they must have.
        jwks: An https address (or http on this machine), or a file.
        roles_claim: Where the roles are.
    """

    def __init__(self, issuer: str, audience: str, jwks: str, roles_claim: str = "roles") -> None:
        self.issuer, self.audience, self.jwks = issuer, audience, jwks
        self.roles_claim = roles_claim
        self._lock = threading.Lock()
        self._keys: dict[str, PyJWK] = {}
        self._fetched = self._tried = float("-inf")

    @classmethod
    def of(cls, settings: Settings) -> Issuer | None:
        """The issuer that the settings name; `None` if they name none.

        Raises:
            KeysError: only a part of it is named, or an address without TLS.
        """
        given = (settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks)
        if not any(given):
            return None
        if not all(given):
            raise KeysError(
                "HEMASEEK_OIDC_ISSUER, HEMASEEK_OIDC_AUDIENCE and HEMASEEK_OIDC_JWKS belong "
                "together; set all three, or none"
            )
        address = urlsplit(settings.oidc_jwks)
        if address.scheme == "http" and not is_loopback(address.hostname or ""):
            raise KeysError(f"HEMASEEK_OIDC_JWKS must be https or a file, got {settings.oidc_jwks}")
        return cls(*given, settings.oidc_roles_claim)

    def caller(self, token: str) -> Caller:
        """Who a token speaks for.

        Raises:
            NotAllowed: not signed by the issuer, not for this service, expired, or without a
                role here.
            KeysError: the issuer's keys cannot be fetched now.
        """
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                self._key(str(header.get("kid", ""))),
                algorithms=ALGORITHMS,
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise NotAllowed(f"this token is not taken: {error}") from error
        roles = self.roles(claims)
        if not roles:
            raise NotAllowed(f"this token has no role for this service in {self.roles_claim!r}")
        return Caller(f"oidc:{_subject(str(claims['sub']))}", roles)

    def roles(self, claims: dict[str, Any]) -> dict[str, Role]:
        """The roles in the claims of a token; what is not a role of this service is left out."""
        found: Any = claims.get(self.roles_claim)
        if found is None:
            found = claims
            for name in self.roles_claim.split("."):
                found = found.get(name) if isinstance(found, dict) else None
        texts = found.split() if isinstance(found, str) else found
        roles: dict[str, Role] = {}
        for text in texts if isinstance(texts, list) else []:
            try:
                roles |= parse_roles([str(text)])
            except KeysError:
                continue  # a role of another application
        return roles

    def _key(self, id: str) -> PyJWK:
        with self._lock:
            now = time.monotonic()
            stale = now - self._fetched > FRESH_SECONDS
            if (stale or id not in self._keys) and now - self._tried > ASK_AGAIN_SECONDS:
                self._tried = now
                try:
                    self._keys, self._fetched = self._fetch(), now
                except KeysError:
                    if not self._keys:
                        raise  # else the last keys hold until the issuer answers
            if not self._keys:
                raise KeysError(f"the keys of {self.issuer} could not be fetched; try again")
            if id not in self._keys:
                raise NotAllowed("this token is signed with a key that its issuer does not list")
            return self._keys[id]

    def _fetch(self) -> dict[str, PyJWK]:
        import httpx
        from jwt import PyJWKSet, PyJWTError

        try:
            if urlsplit(self.jwks).scheme in {"http", "https"}:
                answer = httpx.get(self.jwks, timeout=5, follow_redirects=False)
                answer.raise_for_status()
                content = answer.content
            else:
                content = Path(self.jwks).read_bytes()
            if len(content) > MOST_BYTES:
                raise ValueError("too long to be keys")
            found = json.loads(content)
            if not isinstance(found, dict):
                raise ValueError("expected an object with the list `keys`")
            keys = PyJWKSet.from_dict(found).keys
        except (OSError, ValueError, TypeError, httpx.HTTPError, PyJWTError) as error:
            raise KeysError(
                f"the keys of {self.issuer} at {self.jwks} cannot be read: {error}"
            ) from error
        return {str(key.key_id): key for key in keys if key.key_id is not None}


def _subject(sub: str) -> str:
    """The subject where it is plain, else its hash: the audit log takes no free text."""
    return sub if SUBJECT.fullmatch(sub) else sha256(sub.encode()).hexdigest()[:32]
