"""The audit log: a chain in which nothing can be changed, cut out or cut off unseen."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from search.errors import StoreBusy
from search.security.audit import FIRST, AuditError, AuditLog, files, hash_of, need_free, verify


class Clock:
    """A day that can be turned."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def written(folder: Path, lines: int = 5, now: Clock | None = None) -> AuditLog:
    log = AuditLog(folder, now) if now else AuditLog(folder)
    for at in range(lines):
        log.add({"caller": "k1", "route": "/v1/search", "k": at})
    return log


def test_every_line_has_the_hash_of_the_one_before(tmp_path: Path) -> None:
    written(tmp_path).close()

    (path,) = files(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, 8))
    assert [line["prev"] for line in lines] == [FIRST, *(line["hash"] for line in lines[:-1])]
    assert verify(tmp_path).lines == 7
    assert verify(path).head == lines[-1]["hash"]


@pytest.mark.parametrize("number", range(7))
def test_a_changed_line_is_found(tmp_path: Path, number: int) -> None:
    written(tmp_path).close()
    (path,) = files(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    lines[number] = lines[number].replace('"at": "2', '"at": "1')
    path.write_text("".join(lines))

    with pytest.raises(AuditError, match=f"line {number + 1}: changed after"):
        verify(tmp_path)


def test_a_line_changed_with_its_hash_is_found_at_the_next(tmp_path: Path) -> None:
    written(tmp_path).close()
    (path,) = files(tmp_path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2]["caller"] = "somebody else"
    lines[2]["hash"] = hash_of(lines[2])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    with pytest.raises(AuditError, match="line 4: lines before it were removed, added or moved"):
        verify(tmp_path)


@pytest.mark.parametrize("gone", [0, 3])
def test_a_line_that_was_taken_out_is_found(tmp_path: Path, gone: int) -> None:
    written(tmp_path).close()
    (path,) = files(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:gone] + lines[gone + 1 :]))

    with pytest.raises(AuditError, match=f"line {gone + 1}: lines before it were removed"):
        verify(tmp_path)


def test_an_end_that_was_cut_off_is_found(tmp_path: Path) -> None:
    written(tmp_path).close()
    kept = verify(tmp_path).head
    (path,) = files(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))

    with pytest.raises(AuditError, match="ends at line 5, but line 7 was written"):
        verify(tmp_path)
    (tmp_path / "head").write_text(f"{5:020d} {json.loads(lines[4])['hash']}\n")
    with pytest.raises(AuditError, match="no line has the hash"):
        verify(tmp_path, kept)


def test_a_log_written_anew_does_not_match_the_hash_that_was_kept(tmp_path: Path) -> None:
    clock = Clock()
    written(tmp_path / "a", now=clock).close()
    clock.now += timedelta(milliseconds=1)  # the same lines of one instant are the same chain
    written(tmp_path / "b", now=clock).close()

    with pytest.raises(AuditError, match="no line has the hash"):
        verify(tmp_path / "b", verify(tmp_path / "a").head)


def test_half_a_line_is_set_aside_and_the_chain_goes_on(tmp_path: Path) -> None:
    written(tmp_path).close()
    (path,) = files(tmp_path)
    with path.open("ab") as handle:
        handle.write(b'{"seq": 8, "at"')
    with pytest.raises(AuditError, match="cut off"):
        verify(tmp_path)

    AuditLog(tmp_path).close()

    assert verify(tmp_path).lines == 9
    assert path.with_suffix(".torn").read_bytes() == b'{"seq": 8, "at"'
    assert '"torn_bytes": 15' in path.read_text()


def test_lines_lost_before_a_start_are_recorded_in_the_log_for_good(tmp_path: Path) -> None:
    written(tmp_path).close()
    (path,) = files(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]))

    AuditLog(tmp_path).close()

    assert verify(tmp_path).missing == 2


def test_the_chain_goes_on_from_day_to_day_and_from_start_to_start(tmp_path: Path) -> None:
    clock = Clock()
    for _ in range(2):
        log = AuditLog(tmp_path, clock)
        log.add({"k": 1})
        clock.now += timedelta(days=1)
        log.add({"k": 2})
        log.close()

    assert [path.name for path in files(tmp_path)] == [
        "2026-03-01.jsonl",
        "2026-03-02.jsonl",
        "2026-03-03.jsonl",
    ]
    assert verify(tmp_path).lines == 8


def test_a_day_that_was_taken_out_is_found(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path, clock)
    for _ in range(3):
        log.add({"k": 1})
        clock.now += timedelta(days=1)
    log.close()
    files(tmp_path)[1].unlink()

    with pytest.raises(AuditError, match=r"2026-03-03\.jsonl, line 1: lines before it"):
        verify(tmp_path)


def test_a_clock_that_goes_back_does_not_go_back_to_an_older_file(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path, clock)
    log.add({"k": 1})
    clock.now -= timedelta(days=2)
    log.add({"k": 2})
    log.close()
    again = AuditLog(tmp_path, clock)
    again.close()

    assert [path.name for path in files(tmp_path)] == ["2026-03-01.jsonl"]
    assert verify(tmp_path).lines == 6


def test_only_one_process_writes_a_log(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)

    with pytest.raises(StoreBusy, match=r"process \d+ writes the audit log"):
        AuditLog(tmp_path)
    log.close()
    log.close()
    AuditLog(tmp_path).close()


def test_a_log_whose_last_line_is_no_line_is_not_written_on(tmp_path: Path) -> None:
    written(tmp_path).close()
    (path,) = files(tmp_path)
    with path.open("a") as handle:
        handle.write("not json\n")

    with pytest.raises(AuditError, match="Move the folder aside"):
        AuditLog(tmp_path)
    with pytest.raises(AuditError, match="line 8: cut off, or not JSON"):
        verify(tmp_path)


def test_a_line_longer_than_the_window_is_still_the_last(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.add({"items": ["x" * 36] * 9000})
    seq, head = log.head
    log.close()
    path = files(tmp_path)[0]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))

    again = AuditLog(tmp_path)

    assert json.loads(path.read_text().splitlines()[2])["prev"] == head
    assert again.head[0] == seq + 1
    again.close()


def test_a_second_service_is_refused_before_it_starts(tmp_path: Path) -> None:
    need_free(tmp_path / "none yet")
    log = AuditLog(tmp_path)
    with pytest.raises(StoreBusy, match="a service is running on this library"):
        need_free(tmp_path)
    log.close()
    need_free(tmp_path)
