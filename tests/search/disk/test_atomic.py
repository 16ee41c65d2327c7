"""Files are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.disk.atomic import write_durably


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "facts.json"
    write_durably(path, b"before")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("encoder.durable.os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"after")

    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]
