"""Worker processes that share work on images: same answers, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from encoder.contract import RGB
from encoder.features.descriptors import in_a_row, measure
from encoder.features.measured import measured_row
from encoder.features.workers import RESTARTS, SHARE, Workers
from encoder.image import resize


@pytest.fixture(name="workers")
def _workers() -> Iterator[Workers]:
    workers = Workers(2)
    yield workers
    workers.close()


@pytest.fixture(name="images")
def _images(rng: np.random.Generator) -> list[RGB]:
    return [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(2 * SHARE + 1)]


def pids(workers: Workers) -> list[int]:
    return list(workers._pool._processes) if workers._pool else []


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_what_workers_find_is_what_the_caller_finds_in_order(
    workers: Workers, images: list[RGB]
) -> None:
    found = workers.map(measured_row, images)

    assert len(pids(workers)) == 1
    np.testing.assert_array_equal(found, [in_a_row(measure(image)) for image in images])


def test_a_few_images_start_no_worker(workers: Workers, images: list[RGB]) -> None:
    workers.map(measured_row, images[: SHARE + 1])

    assert pids(workers) == []


def test_the_share_of_a_killed_worker_is_done_by_the_caller(
    workers: Workers, images: list[RGB]
) -> None:
    expected = workers.map(measured_row, images)
    for _ in range(RESTARTS):
        (pid,) = pids(workers)
        os.kill(pid, signal.SIGKILL)
        np.testing.assert_array_equal(workers.map(measured_row, images), expected)
        workers.map(measured_row, images)

    assert pids(workers) == [], "it goes on alone where workers keep dying"
    np.testing.assert_array_equal(workers.map(measured_row, images), expected)


def test_what_a_job_raises_is_raised_and_leaves_no_answer_behind(
    workers: Workers, images: list[RGB]
) -> None:
    with pytest.raises(KeyError, match="nosuch"):
        workers.map(resize, images, 8, "nosuch")

    assert {one.shape for one in workers.map(resize, images, 8, "lanczos")} == {(8, 8, 3)}


def test_what_fails_in_a_worker_alone_is_raised_too(workers: Workers, images: list[RGB]) -> None:
    broken = np.zeros((9, 9), np.uint8)

    with pytest.raises(cv2.error, match="number of channels"):
        workers.map(measured_row, [*images[:-1], broken])

    assert len(workers.map(measured_row, images)) == len(images)


def test_several_threads_share_the_workers(workers: Workers, images: list[RGB]) -> None:
    expected = [measured_row(image) for image in images]
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda _: workers.map(measured_row, images), range(3)))

    for found in answers:
        np.testing.assert_array_equal(found, expected)
    assert len(pids(workers)) == 1


def test_a_worker_that_is_silent_is_given_up(
    workers: Workers, images: list[RGB], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoder.features.workers.PATIENCE_S", 0.05)
    expected = [measured_row(image) for image in images]
    workers.map(measured_row, images)
    for pid in pids(workers):
        os.kill(pid, signal.SIGSTOP)

    np.testing.assert_array_equal(workers.map(measured_row, images), expected)
    assert pids(workers) == []


def test_a_fork_of_the_caller_works_alone(workers: Workers, images: list[RGB]) -> None:
    """The pool answers to the process that opened it alone."""
    expected = workers.map(measured_row, images)
    (before,) = pids(workers)
    workers._pid += 1  # what a fork sees
    workers._pool.submit = None

    np.testing.assert_array_equal(workers.map(measured_row, images), expected)
    assert pids(workers) == [before]


def test_a_script_without_a_main_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "from encoder.features.workers import Workers\n"
        "from encoder.features.measured import measured_row\n"
        "print(len(Workers(2).map(measured_row, [np.full((40, 40, 3), 9, np.uint8)] * 8)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("8\n", "")


def test_workers_end_when_their_parent_is_killed() -> None:
    code = (
        "import numpy as np, time\n"
        "from encoder.features.workers import Workers\n"
        "from encoder.features.measured import measured_row\n"
        "workers = Workers(2)\n"
        "workers.map(measured_row, [np.full((40, 40, 3), 9, np.uint8)] * 8)\n"
        "print(next(iter(workers._pool._processes)), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    end = time.monotonic() + 10
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)

    assert not alive(pid)


def test_it_uses_no_more_cores_than_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    assert Workers().cores == 1
