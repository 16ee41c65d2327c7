"""Long work is started, watched, stopped and remembered, and its failures stay its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.library.jobs import Job, Jobs, JobStopped, NoSuchJob, Run
from search.schemas.versions import ENDED


@pytest.fixture(name="jobs")
def _jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path / "jobs")
    yield jobs
    jobs.close()


def ended(jobs: Jobs, id: str) -> Job:
    done = threading.Event()
    for _ in range(3000):
        if jobs.get(id).state in ENDED:
            return jobs.get(id)
        done.wait(0.01)
    raise AssertionError(jobs.get(id))


def test_a_job_says_how_far_it_is_and_what_came_out(jobs: Jobs) -> None:
    half, go_on = threading.Event(), threading.Event()

    def work(run: Run) -> dict[str, int]:
        run.progress(1, 2)
        half.set()
        go_on.wait(30)
        return {"answer": 42}

    job = jobs.start("reindex", "cells", work)
    half.wait(30)
    now = jobs.get(job.id)
    assert (now.state, now.done, now.total, now.result) == ("running", 1, 2, None)
    go_on.set()
    then = ended(jobs, job.id)
    assert (then.state, then.result, then.error) == ("done", {"answer": 42}, None)


def test_one_that_fails_says_why_and_the_next_goes_on(jobs: Jobs) -> None:
    def fail(run: Run) -> dict[str, int]:
        raise ValueError("no such encoder")

    first = jobs.start("reindex", "cells", fail)
    not_json = jobs.start("reindex", "cells", lambda run: {"x": float("nan")})
    third = jobs.start("reindex", "cells", lambda run: {})

    assert ended(jobs, first.id).error == "ValueError: no such encoder"
    assert ended(jobs, not_json.id).state == "failed"
    assert ended(jobs, third.id).state == "done"


def test_a_job_can_be_stopped_while_it_waits_and_while_it_runs(jobs: Jobs) -> None:
    running = threading.Event()

    def work(run: Run) -> dict[str, int]:
        running.set()
        while True:
            run.check()

    first, second = (jobs.start("reindex", "cells", work) for _ in range(2))
    running.wait(30)
    jobs.stop(second.id)
    jobs.stop(first.id)

    assert ended(jobs, first.id).state == "stopped"
    assert ended(jobs, second.id).state == "stopped"
    assert str(JobStopped("x")) == "x"
    assert jobs.stop(first.id).state == "stopped", "stopping twice changes nothing"


def test_ended_jobs_are_remembered_and_others_are_marked_interrupted(
    tmp_path: Path, jobs: Jobs
) -> None:
    done = jobs.start("reindex", "cells", lambda run: {"x": 1})
    ended(jobs, done.id)
    cut = Job(id="cut", kind="reindex", collection="cells", state="running")
    (tmp_path / "jobs" / "cut.json").write_text(json.dumps(vars(cut)))
    (tmp_path / "jobs" / "other.json").write_text("{")
    again = Jobs(tmp_path / "jobs")

    assert again.get(done.id) == jobs.get(done.id)
    assert again.get("cut").state == "interrupted"
    with pytest.raises(NoSuchJob):
        again.get("other")


def test_only_so_many_ended_ones_are_kept(
    tmp_path: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.library.jobs.KEPT", 3)
    for _ in range(6):
        last = jobs.start("reindex", "cells", lambda run: {})
        ended(jobs, last.id)

    assert len(jobs.all()) == 4
    assert len(list((tmp_path / "jobs").glob("*.json"))) == 4


def test_a_service_that_stops_takes_no_more(jobs: Jobs) -> None:
    jobs.close()
    with pytest.raises(RuntimeError, match="takes no more jobs"):
        jobs.start("reindex", "cells", lambda run: {})
