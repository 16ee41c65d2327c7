"""Files appear whole under their name, wherever they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder.durable import replacing


def test_a_file_is_written_where_folders_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with replacing(tmp_path / "weights") as file:
        file.write(b"whole")
        monkeypatch.setattr("encoder.durable.os.open", refused)
        monkeypatch.setattr("encoder.durable.os.name", "nt")
    monkeypatch.undo()

    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]
