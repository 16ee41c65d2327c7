"""Uploaded sets on disk: room is asked for first, nobody takes all of it, nothing stays behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from random_library import CARD, random_entries, random_service

from search.disk.space import DiskTrouble
from search.errors import Busy
from search.evaluation.kept import KIND, Evaluations
from search.library.jobs import Job, Jobs
from search.library.shards import make_shard_bytes
from search.query.context import Context
from search.schemas.evaluations import EvaluationPlan
from search.service import Service
from search.settings import Settings

PLAN = EvaluationPlan(collection="cells")


class Waiting:
    """Jobs that all wait."""

    def start(self, *_: object) -> None:
        """Queue one."""

    def get(self, id: str) -> Job:
        """One, as it waits."""
        return Job(id=id, kind=KIND, collection="cells")


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    entries = random_entries(np.random.default_rng(3), 40)
    service = random_service(tmp_path_factory.mktemp("kept"), entries)
    yield service
    service.close()


@pytest.fixture(name="content", scope="module")
def _content() -> bytes:
    """A shard that is sent as a labelled set."""
    return make_shard_bytes(random_entries(np.random.default_rng(4), 40), CARD)


def opened(service: Service, content: bytes, folder: Path) -> tuple[Evaluations, Context]:
    """Evaluations of which all wait, with room for four such sets."""
    settings = Settings(max_shard_mb=len(content) / 2**20)
    context = Context(**{**vars(service.context()), "settings": settings})
    jobs = cast("Jobs", Waiting())
    return Evaluations(folder, jobs, lambda _: context), context


def test_the_sets_of_one_caller_leave_room_for_those_of_others(
    service: Service, content: bytes, tmp_path: Path
) -> None:
    kept, context = opened(service, content, tmp_path)
    for _ in range(2):
        kept.start(context, PLAN, content, "one")
    with pytest.raises(Busy):
        kept.start(context, PLAN, content, "one")
    kept.start(context, PLAN, None, "one")  # without a set there is room
    for _ in range(2):
        kept.start(context, PLAN, content, "two")
    with pytest.raises(Busy):
        kept.start(context, PLAN, content, "three")

    assert len(list(tmp_path.glob("*/set*"))) == 4
    assert len(kept.all()) == 5


def test_without_room_on_the_disk_nothing_is_begun(
    service: Service, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, context = opened(service, content, tmp_path)
    monkeypatch.setattr("search.disk.space.RESERVE", 1 << 60)
    with pytest.raises(DiskTrouble, match="make room"):
        kept.start(context, PLAN, content, "one")

    assert list(tmp_path.iterdir()) == []


def test_a_start_removes_what_a_killed_service_left(
    service: Service, content: bytes, tmp_path: Path
) -> None:
    kept, context = opened(service, content, tmp_path)
    whole = kept.start(context, PLAN, content, "one")
    (tmp_path / ("0" * 32)).mkdir()  # killed before its record was written
    (tmp_path / whole.id / "set").write_bytes(b"as an earlier version called it")
    kept.sweep()

    assert [path.name for path in tmp_path.iterdir()] == [whole.id]
    left: list[Any] = sorted(path.name for path in (tmp_path / whole.id).iterdir())
    assert left == ["evaluation.json"]
    assert json.loads((tmp_path / whole.id / "evaluation.json").read_text())["id"] == whole.id
