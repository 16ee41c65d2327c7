"""Keys and roles: who is let in, how far, and that no route is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from routes import ask, operations

from benchmarks.fuzz_api import Stored, small_library
from search.api.access import api_router
from search.api.app import LISTING, ROLE, create_app
from search.security.keys import ROLES, Auth, Caller, Keys, KeysError, NotAllowed, Role, parse_roles
from search.security.ratelimit import RateLimit
from search.settings import Settings
from ui.cli.serving import application

OPEN = {"GET /health"}
"""All that answers without a key."""


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stored]:
    folder = tmp_path_factory.mktemp("auth") / "library"
    return folder, small_library(folder, 30)


@pytest.fixture(name="texts", scope="module")
def _texts(library: tuple[Path, Stored]) -> dict[str, str]:
    """The text of one key for each kind of caller; `cells` is the collection that is searched."""
    keys = Keys(library[0] / "keys.json")
    texts = {
        "no key": "",
        "wrong key": "hk_00000000_" + "A" * 43,
        "other": keys.add("other", {"other": "admin"})[1],
        "both": keys.add("both", {"cells": "read", "other": "read"})[1],
        **{role: keys.add(role, {"cells": role})[1] for role in ROLES},
    }
    revoked, texts["revoked"] = keys.add("revoked", {"*": "admin"})
    keys.revoke(revoked.id)
    return texts


@pytest.fixture(name="app", scope="module")
def _app(library: tuple[Path, Stored], texts: dict[str, str]) -> Iterator[tuple[FastAPI, Any]]:
    app = application(Settings(library=library[0]))  # with the routes of every part
    with TestClient(app) as client:
        app.state.parts.wrong_keys = RateLimit("")  # the matrix knocks more often than one may
        yield app, client


@pytest.fixture(name="client")
def _client(app: tuple[FastAPI, TestClient]) -> TestClient:
    return app[1]


def expected(who: str, operation: dict[str, Any], name: str) -> set[int]:
    """What the matrix says: statuses below 400 only where the role suffices."""
    role: Role | None = operation.get(ROLE)
    if role is None:
        assert name in OPEN, f"{name} states no role"
        return {200}
    if who in {"no key", "wrong key", "revoked"}:
        return {401}
    if who == "other":
        if "/jobs/" in name or "/evaluations/" in name:
            return {404}  # one on a collection that the caller may not see is not there
        return {200} if operation.get(LISTING) else {403}
    if ROLES.index(who) < ROLES.index(role):  # type: ignore[arg-type]
        return {403}
    return {200, 202, 404, 409, 422}  # let in: what the answer is, is for other tests


@pytest.mark.parametrize(
    "who", ["no key", "wrong key", "revoked", "other", "read", "write", "admin"]
)
def test_every_route_of_the_openapi_file_lets_in_whom_its_role_says(
    client: TestClient, library: tuple[Path, Stored], texts: dict[str, str], who: str
) -> None:
    surprises, let_in = [], 0
    for method, path, operation in operations():
        name = f"{method} {path}"
        response = ask(client, method, path, library[1], texts[who])
        let_in += response.is_success
        if response.status_code not in expected(who, operation, name):
            surprises.append(f"{name}: {response.status_code} {response.text[:200]}")

    assert surprises == []
    assert let_in >= {"read": 8, "write": 12, "admin": 12, "other": 3}.get(who, 1)


def names_a_collection(operation: dict[str, Any], schemas: dict[str, Any]) -> bool:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return "collection" in schemas.get(name, {}).get("properties", {})


def test_every_collection_that_a_body_can_name_is_checked(
    client: TestClient, library: tuple[Path, Stored], texts: dict[str, str]
) -> None:
    schemas = application(Settings()).openapi()["components"]["schemas"]
    ids, headers = library[1].ids, {"X-API-Key": texts["other"]}
    questions = {
        "/v1/cases/similar": {"items": ids[:3]},
        "/v1/evaluations": {},
        "/v1/explain": {"item": ids[0], "hits": ids[1:2]},
    }
    named = [path for _, path, one in operations() if names_a_collection(one, schemas)]

    for path in named:
        body = {**questions.get(path, {"item": ids[0]}), "collection": "cells"}
        form = {"data": {"question": json.dumps(body)}}
        field = {"/v1/cases/similar": "images", "/v1/evaluations": "set"}.get(path, "image")
        files = {field: ("a", library[1].image, "image/png")}
        assert client.post(path, json=body, headers=headers).status_code == 403, path
        assert client.post(path, headers=headers, files=files, **form).status_code == 403, path
    assert set(named) >= {*questions, "/v1/search", "/v1/vote", "/v1/refine"}


@pytest.mark.parametrize("where", ["cells", None])
def test_a_collection_that_a_body_names_is_guarded_too(
    client: TestClient, library: tuple[Path, Stored], texts: dict[str, str], where: str | None
) -> None:
    headers = {"X-API-Key": texts["other"]}
    questions = {"item": library[1].ids[0], "collection": where}

    for path in ("/v1/search", "/v1/vote", "/v1/refine"):
        assert client.post(path, json=questions, headers=headers).status_code == 403
        beside = {**questions, "collection": "other", "fuse_with": "cells"}
        assert client.post(path, json=beside, headers=headers).status_code == 403
        own = client.post(path, json={**questions, "collection": "other"}, headers=headers)
        assert own.status_code == 200, own.text


def test_a_search_of_two_collections_is_audited_with_both(
    client: TestClient, library: tuple[Path, Stored], texts: dict[str, str]
) -> None:
    body = {"item": library[1].ids[0], "collection": "cells", "fuse_with": "other"}
    client.post("/v1/search", json=body, headers={"X-API-Key": texts["both"]})

    lines = [path.read_text() for path in sorted((library[0] / "audit").glob("*.jsonl"))]
    last = json.loads("".join(lines).splitlines()[-1])
    assert (last["collection"], last["beside"]) == ("cells", "other")


def test_the_matrix_has_the_routes_of_every_part() -> None:
    paths = {path for _, path, _ in operations()}

    assert {"/v1/search", "/v1/cells", "/v1/sources/{id}/dzi"} <= paths
    assert {"/v1/explain", "/v1/evaluations", "/v1/collections/{name}/ingests"} <= paths


def test_lists_show_only_the_collections_of_the_key(
    client: TestClient, texts: dict[str, str]
) -> None:
    listed = client.get("/v1/collections", headers={"X-API-Key": texts["other"]})
    metrics = client.get("/metrics", headers={"X-API-Key": texts["other"]})
    missing = client.get("/v1/collections/other/facets/label", headers={"X-API-Key": texts["read"]})

    assert [one["name"] for one in listed.json()] == ["other"]
    assert 'collection="other"' in metrics.text
    assert 'collection="cells"' not in metrics.text
    assert missing.status_code == 403


def test_a_missing_collection_and_a_forbidden_one_get_the_same_answer(
    client: TestClient, texts: dict[str, str]
) -> None:
    headers = {"X-API-Key": texts["other"]}

    hidden = client.get("/v1/collections/cells/facets/label", headers=headers)
    absent = client.get("/v1/collections/nosuch/facets/label", headers=headers)

    assert (hidden.status_code, absent.status_code) == (403, 403)
    assert "other" not in absent.json()["detail"]


def test_a_key_also_comes_as_a_bearer_token(client: TestClient, texts: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {texts['read']}"}

    assert client.get("/v1/collections", headers=headers).status_code == 200


def test_without_a_key_no_body_is_read(client: TestClient) -> None:
    read = []

    def body() -> Iterator[bytes]:
        for part in range(100):
            read.append(part)
            yield b" " * 1024

    response = client.post(
        "/v1/collections/cells/known", content=body(), headers={"content-type": "application/json"}
    )

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_revoked_key_is_refused_by_the_running_service(
    client: TestClient, library: tuple[Path, Stored]
) -> None:
    keys = Keys(library[0] / "keys.json")
    key, text = keys.add("for a day", {"cells": "read"})
    headers = {"X-API-Key": text}

    before = client.get("/v1/collections", headers=headers).status_code
    keys.revoke(key.id)

    assert (before, client.get("/v1/collections", headers=headers).status_code) == (200, 401)


def test_the_file_of_keys_contains_no_key(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    key, text = keys.add("page", {"*": "read"})

    assert text.split("_", 2)[2] not in keys.path.read_text()
    assert keys.path.stat().st_mode & 0o777 == 0o600
    assert keys.find(text) == key
    assert keys.find(text[:-1] + ("A" if text[-1] != "A" else "B")) is None


def test_two_operators_at_once_lose_no_key(tmp_path: Path) -> None:
    first, second = Keys(tmp_path / "keys.json"), Keys(tmp_path / "keys.json")

    for at in range(5):
        first.add(f"a{at}", {"*": "read"})
        second.add(f"b{at}", {"*": "read"})

    assert len(Keys(tmp_path / "keys.json").all()) == 10


@pytest.mark.parametrize("damage", ["", "{", '{"keys": [{"id": "x"}]}', "[]"])
def test_damaged_keys_let_nobody_in(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "keys.json"
    _, text = Keys(path).add("page", {"*": "admin"})
    path.write_text(damage)

    with pytest.raises(KeysError, match=r"keys\.json cannot be read"):
        Auth(Settings(library=tmp_path)).identify({"x-api-key": text})


def test_a_service_reached_from_outside_answers_nobody_without_keys(tmp_path: Path) -> None:
    auth = Auth(Settings(library=tmp_path, host="0.0.0.0"))

    with pytest.raises(NotAllowed, match="hemaseek keys add"):
        auth.identify({"host": "127.0.0.1:8000"})


@pytest.mark.parametrize(
    ("host", "let_in"),
    [
        ("127.0.0.1:8000", True),
        ("localhost:8000", True),
        ("[::1]:8000", True),
        ("rebound.example.com:8000", False),
        ("192.168.0.7:8000", False),
    ],
)
def test_a_foreign_name_for_this_machine_is_not_answered_without_a_key(
    tmp_path: Path, host: str, let_in: bool
) -> None:
    auth = Auth(Settings(library=tmp_path))

    if let_in:
        assert auth.identify({"host": host}).may("admin", "anything")
    else:
        with pytest.raises(NotAllowed):
            auth.identify({"host": host})


@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        ({"origin": "http://127.0.0.1:8000"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://127.0.0.1:9999"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
    ],
)
def test_a_page_of_another_origin_cannot_use_an_open_service(
    tmp_path: Path, headers: dict[str, str], let_in: bool
) -> None:
    auth = Auth(Settings(library=tmp_path))
    sent = {"host": "127.0.0.1:8000", **headers}

    if let_in:
        auth.identify(sent)
    else:
        with pytest.raises(NotAllowed, match="origin"):
            auth.identify(sent)


def test_roles_are_written_as_role_or_collection_and_role() -> None:
    assert parse_roles(["read", "cells:admin"]) == {"*": "read", "cells": "admin"}
    for wrong in ("owner", "cells:", "NOT OK:read", ""):
        with pytest.raises(KeysError, match="expected ROLE or COLLECTION:ROLE"):
            parse_roles([wrong])
    with pytest.raises(KeysError, match="needs a role"):
        parse_roles([])


def test_the_larger_of_two_roles_applies() -> None:
    caller = Caller("x", {"*": "read", "cells": "write"})

    assert caller.may("write", "cells")
    assert not caller.may("write", "other")
    assert caller.may("read", "other")


def test_a_route_that_states_no_role_stops_the_application() -> None:
    router = api_router()

    @router.get("/careless")
    def careless() -> None: ...

    with pytest.raises(TypeError, match="states no role"):
        create_app(settings=Settings(), routers=[router])


def test_the_openapi_file_says_the_role_of_every_route() -> None:
    stated = {f"{m} {p}": o.get(ROLE) for m, p, o in operations()}

    assert {name for name, role in stated.items() if role is None} == OPEN
    assert json.dumps(stated)


def test_checking_a_key_loads_no_engine_and_no_tables() -> None:
    code = (
        "import sys, pathlib; from search.security.keys import Keys\n"
        "Keys(pathlib.Path('none.json')).find('hk_abcdefgh_' + 43 * 'x')\n"
        "heavy = {'pyarrow', 'numpy', 'torch', 'qdrant_edge', 'qdrant_client', 'sklearn'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("hosts", "keys", "host", "answers"),
    [
        ("", False, "localhost:8000", True),
        ("", False, "127.0.0.1", True),
        ("", False, "[::1]:8000", True),
        ("", False, "evil", False),
        ("", False, "evil.example", False),
        ("", False, "", False),
        ("hemaseek", False, "hemaseek:8000", True),
        ("", True, "anything.example", True),
        ("hemaseek.example, other", True, "HEMASEEK.example:443", True),
        ("hemaseek.example", True, "evil.example", False),
    ],
)
def test_a_service_answers_only_to_its_names(
    tmp_path: Path, hosts: str, keys: bool, host: str, answers: bool
) -> None:
    key = SecretStr("secret") if keys else None
    auth = Auth(Settings(library=tmp_path, hosts=hosts, api_key=key))
    headers = {"host": host, "x-api-key": "secret"} if keys else {"host": host}
    if answers:
        auth.identify(headers)
    else:
        with pytest.raises(NotAllowed, match="HEMASEEK_HOSTS"):
            auth.identify(headers)


def test_keys_are_compared_in_constant_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[object] = []

    def compare(one: Any, other: Any) -> bool:
        compared.append(one)
        return bool(one == other)

    monkeypatch.setattr("search.security.keys.hmac.compare_digest", compare)
    auth = Auth(Settings(library=tmp_path, api_key=SecretStr("the master key")))
    key, text = auth.keys.add("reader", {"*": "read"})
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")

    assert auth.identify({"x-api-key": text, "host": "localhost"}).id == key.id
    assert auth.identify({"x-api-key": "the master key", "host": "localhost"}).id == "settings"
    with pytest.raises(NotAllowed):
        auth.identify({"x-api-key": wrong, "host": "localhost"})
    assert compared.count(key.hash) == 2  # the right one, and the wrong one whose id is known
    assert len(compared) == 5  # all three against the key of the settings too
