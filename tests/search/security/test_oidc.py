"""Tokens of an OIDC issuer: signed by it, made for this service, in time, and with a role."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.testclient import TestClient
from jwt.algorithms import RSAAlgorithm

from benchmarks.fuzz_api import small_library
from search.api.app import create_app
from search.security.keys import KeysError, NotAllowed
from search.security.oidc import Issuer
from search.service import Service
from search.settings import Settings

ISSUER, AUDIENCE = "https://login.example.org/realm", "hemaseek"


@pytest.fixture(name="key", scope="module")
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwks(*keys: tuple[str, rsa.RSAPrivateKey]) -> str:
    public = [
        {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": id, "use": "sig"}
        for id, key in keys
    ]
    return json.dumps({"keys": public})


@pytest.fixture(name="file")
def _file(tmp_path: Path, key: rsa.RSAPrivateKey) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(jwks(("one", key)))
    return path


def token(key: Any, kid: str = "one", algorithm: str = "RS256", **changes: Any) -> str:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-17",
        "exp": int(time.time()) + 600,
        "roles": ["cells:read", "role-of-another-application"],
        **changes,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers={"kid": kid})


def test_a_token_of_the_issuer_is_a_caller_with_its_roles(
    file: Path, key: rsa.RSAPrivateKey
) -> None:
    caller = Issuer(ISSUER, AUDIENCE, str(file)).caller(token(key))

    assert caller.id == "oidc:user-17"
    assert caller.roles == {"cells": "read"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://elsewhere.example.org"}, "issuer"),
        ({"aud": "another-service"}, "[Aa]udience"),
        ({"aud": None}, "aud"),
        ({"exp": 1_700_000_000}, "expired"),
        ({"exp": None}, "exp"),
        ({"nbf": 4_000_000_000}, "not yet valid"),
        ({"sub": None}, "sub"),
        ({"roles": ["cells:owner", "other"]}, "no role"),
        ({"roles": None}, "no role"),
        ({"roles": {"cells": "admin"}}, "no role"),
    ],
)
def test_any_other_token_is_refused(
    file: Path, key: rsa.RSAPrivateKey, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(NotAllowed, match=why):
        Issuer(ISSUER, AUDIENCE, str(file)).caller(token(key, **changes))


def test_a_token_with_another_signature_is_refused(file: Path, key: rsa.RSAPrivateKey) -> None:
    issuer = Issuer(ISSUER, AUDIENCE, str(file))
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = token(key)
    head, _, signature = good.split(".")
    forged = token(stranger, roles=["admin"]).split(".")[1]

    for bad in (
        token(stranger),
        token(stranger, kid="unlisted"),
        f"{head}.{forged}.{signature}",
        jwt.encode({"sub": "x"}, None, "none", headers={"kid": "one"}),
        token("a-secret-that-both-would-know-by-heart", algorithm="HS256"),
        "a.b.c",
        "..",
    ):
        with pytest.raises(NotAllowed):
            issuer.caller(bad)


def test_the_public_key_is_not_taken_for_a_shared_secret(
    file: Path, key: rsa.RSAPrivateKey
) -> None:
    """The attack in which the issuer's public key signs as an HMAC secret."""
    import base64
    import hmac
    from hashlib import sha256

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{part({'alg': 'HS256', 'kid': 'one'})}.{token(key).split('.')[1]}"
    mac = hmac.new(public, text.encode(), sha256).digest()
    forged = f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    with pytest.raises(NotAllowed):
        Issuer(ISSUER, AUDIENCE, str(file)).caller(forged)


@pytest.mark.parametrize(
    ("claim", "claims", "roles"),
    [
        ("roles", {"roles": "read other:write"}, {"*": "read", "other": "write"}),
        ("realm_access.roles", {"realm_access": {"roles": ["admin"]}}, {"*": "admin"}),
        ("https://x.org/roles", {"https://x.org/roles": ["cells:read"]}, {"cells": "read"}),
        ("realm_access.roles", {"realm_access": "read"}, {}),
        ("roles", {"roles": 3}, {}),
    ],
)
def test_roles_are_found_where_the_setting_says(
    claim: str, claims: dict[str, Any], roles: dict[str, str]
) -> None:
    assert Issuer(ISSUER, AUDIENCE, "unused", claim).roles(claims) == roles


def test_a_subject_that_is_not_plain_is_hashed(file: Path, key: rsa.RSAPrivateKey) -> None:
    caller = Issuer(ISSUER, AUDIENCE, str(file)).caller(token(key, sub="Jane Roe, born 1961"))

    assert len(caller.id) == len("oidc:") + 32
    assert "Jane" not in caller.id


class Keys(http.server.BaseHTTPRequestHandler):
    """Serves the keys of an issuer, and counts how often."""

    content = ""
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(name="address")
def _address(key: rsa.RSAPrivateKey) -> Iterator[str]:
    Keys.content, Keys.requests = jwks(("one", key)), 0
    with http.server.HTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/keys"
        server.shutdown()
        thread.join()


def test_keys_are_fetched_once_and_not_for_every_unknown_id(
    address: str, key: rsa.RSAPrivateKey
) -> None:
    issuer = Issuer(ISSUER, AUDIENCE, address)

    for _ in range(3):
        issuer.caller(token(key))
        with pytest.raises(NotAllowed, match="does not list"):
            issuer.caller(token(key, kid="invented"))

    assert Keys.requests == 1


def test_a_new_key_of_the_issuer_is_found_after_a_while(
    address: str, key: rsa.RSAPrivateKey
) -> None:
    issuer = Issuer(ISSUER, AUDIENCE, address)
    issuer.caller(token(key))
    Keys.content = jwks(("two", key))

    issuer._tried = float("-inf")  # the while is over

    assert issuer.caller(token(key, kid="two")).id == "oidc:user-17"


def test_keys_fetched_earlier_are_used_while_the_issuer_is_down(
    address: str, key: rsa.RSAPrivateKey
) -> None:
    issuer = Issuer(ISSUER, AUDIENCE, address)
    issuer.caller(token(key))
    Keys.content = "<html>maintenance</html>"

    issuer._fetched = issuer._tried = float("-inf")

    assert issuer.caller(token(key)).id == "oidc:user-17"


def test_an_issuer_without_keys_lets_nobody_in(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    (tmp_path / "junk.json").write_text("[]")

    for place in (tmp_path / "missing.json", tmp_path / "junk.json"):
        with pytest.raises(KeysError, match="cannot be read"):
            Issuer(ISSUER, AUDIENCE, str(place)).caller(token(key))


def test_half_a_configuration_is_refused() -> None:
    with pytest.raises(KeysError, match="belong together"):
        Issuer.of(Settings(oidc_issuer=ISSUER))
    with pytest.raises(KeysError, match="must be https or a file"):
        Issuer.of(
            Settings(
                oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks="http://example.org/keys"
            )
        )
    assert Issuer.of(Settings()) is None


def test_the_service_takes_tokens_beside_keys(
    tmp_path: Path, file: Path, key: rsa.RSAPrivateKey
) -> None:
    small_library(tmp_path / "library", 3)
    settings = Settings(
        library=tmp_path / "library",
        api_key="master",
        oidc_issuer=ISSUER,
        oidc_audience=AUDIENCE,
        oidc_jwks=str(file),
    )
    service = Service.open(settings)
    with TestClient(create_app(service)) as client:

        def status(path: str, text: str) -> int:
            return client.get(path, headers={"Authorization": f"Bearer {text}"}).status_code

        assert status("/v1/collections/cells/facets/label", token(key)) == 200
        assert status("/v1/collections/other/facets/label", token(key)) == 403
        assert status("/v1/collections", token(key, exp=1)) == 401
        assert status("/v1/collections", "master") == 200
        assert client.get("/v1/collections").status_code == 401
    service.close()
