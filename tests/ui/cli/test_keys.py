"""The verbs of the operator: keys and the audit log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from search.security.audit import AuditError, AuditLog, files
from search.security.keys import Keys, KeysError
from ui.cli.keys import audit, keys


def run(app: object, folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--library", str(folder)])  # type: ignore[arg-type]


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    made = run(keys, tmp_path, "add", "the page", "--role", "cells:read", "--role", "other:write")
    text = made.stdout.strip()
    key = Keys(tmp_path / "keys.json").find(text)
    assert key is not None
    assert key.roles == {"cells": "read", "other": "write"}

    (listed,) = map(json.loads, run(keys, tmp_path, "list").stdout.splitlines())
    revoked = run(keys, tmp_path, "revoke", key.id)

    assert (listed["id"], listed["name"]) == (key.id, "the page")
    assert "hash" not in listed
    assert text not in made.stderr
    assert "revoked" in revoked.stdout
    assert Keys(tmp_path / "keys.json").find(text) is None


def test_a_key_needs_a_role_that_exists_and_a_revoked_one_must_be_there(tmp_path: Path) -> None:
    assert run(keys, tmp_path, "add", "x").exit_code == 2
    assert isinstance(run(keys, tmp_path, "add", "x", "--role", "owner").exception, KeysError)
    assert isinstance(run(keys, tmp_path, "revoke", "nosuch").exception, KeysError)
    assert not (tmp_path / "keys.json").exists()


def test_the_audit_log_is_verified(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit")
    log.add({"k": 1})
    log.close()

    good = run(audit, tmp_path, "verify")
    stranger = run(audit, tmp_path, "verify", "--head", "f" * 64)
    (path,) = files(tmp_path / "audit")
    path.write_text(path.read_text().replace('"k": 1', '"k": 2'))
    bad = run(audit, tmp_path, "verify")

    assert good.exit_code == 0
    assert good.stdout.startswith("intact: 3 lines in 1 file;")
    assert isinstance(stranger.exception, AuditError)
    assert isinstance(bad.exception, AuditError)
    assert "line 2: changed" in str(bad.exception)


def test_lost_lines_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    AuditLog(tmp_path / "audit").close()
    (path,) = files(tmp_path / "audit")
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    AuditLog(tmp_path / "audit").close()

    assert "warning: 1 line missing" in run(audit, tmp_path, "verify").stderr
