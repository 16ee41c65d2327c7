"""Children that share work on images: same answers, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from encoder.contract import RGB
from encoder.features.descriptors import in_a_row, measure
from encoder.features.measured import measured_row
from encoder.features.workers import RESTARTS, SHARE, Crew
from encoder.image import resize


@pytest.fixture(name="crew")
def _crew() -> Iterator[Crew]:
    crew = Crew(2)
    yield crew
    crew.close()


@pytest.fixture(name="images")
def _images(rng: np.random.Generator) -> list[RGB]:
    return [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(2 * SHARE + 1)]


def pids(crew: Crew) -> list[int]:
    return [child._process.pid for child in crew._children]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_what_children_find_is_what_the_caller_finds_in_order(
    crew: Crew, images: list[RGB]
) -> None:
    found = crew.map(measured_row, images)

    assert len(pids(crew)) == 1
    np.testing.assert_array_equal(found, [in_a_row(measure(image)) for image in images])


def test_a_few_images_start_no_child(crew: Crew, images: list[RGB]) -> None:
    crew.map(measured_row, images[: SHARE + 1])

    assert pids(crew) == []


def test_the_share_of_a_killed_child_is_done_by_the_caller(crew: Crew, images: list[RGB]) -> None:
    expected = crew.map(measured_row, images)
    for _ in range(RESTARTS):
        (pid,) = pids(crew)
        os.kill(pid, signal.SIGKILL)
        np.testing.assert_array_equal(crew.map(measured_row, images), expected)
        crew.map(measured_row, images)

    assert pids(crew) == [], "it goes on alone where children keep dying"
    np.testing.assert_array_equal(crew.map(measured_row, images), expected)


def test_what_a_job_raises_is_raised_and_leaves_no_answer_behind(
    crew: Crew, images: list[RGB]
) -> None:
    with pytest.raises(KeyError, match="nosuch"):
        crew.map(resize, images, 8, "nosuch")

    assert {one.shape for one in crew.map(resize, images, 8, "lanczos")} == {(8, 8, 3)}


def test_what_fails_in_a_child_alone_is_raised_too(crew: Crew, images: list[RGB]) -> None:
    broken = np.zeros((9, 9), np.uint8)

    with pytest.raises(cv2.error, match="number of channels"):
        crew.map(measured_row, [*images[:-1], broken])

    assert len(crew.map(measured_row, images)) == len(images)


def test_whoever_comes_while_it_is_busy_works_alone(crew: Crew, images: list[RGB]) -> None:
    with crew._turn:
        assert len(crew.map(measured_row, images)) == len(images)
    assert pids(crew) == []


def test_a_child_that_is_silent_is_given_up(
    crew: Crew, images: list[RGB], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoder.features.workers.PATIENCE_S", 0.05)
    expected = [measured_row(image) for image in images]
    crew.map(measured_row, images)
    for pid in pids(crew):
        os.kill(pid, signal.SIGSTOP)

    np.testing.assert_array_equal(crew.map(measured_row, images), expected)
    assert pids(crew) == []


def test_a_fork_of_the_caller_works_alone(crew: Crew, images: list[RGB]) -> None:
    """Two callers on one pipe would take each other's answers."""
    crew.map(measured_row, images)
    crew._pid += 1  # what a fork sees

    assert len(crew.map(measured_row, images)) == len(images)
    os.kill(pids(crew)[0], signal.SIGKILL)
    assert len(crew.map(measured_row, images)) == len(images)
    assert len(pids(crew)) == 1, "nobody spoke to the dead child"


def test_children_go_when_their_parent_is_killed() -> None:
    code = (
        "import numpy as np, time\n"
        "from encoder.features.workers import Crew\n"
        "from encoder.features.measured import measured_row\n"
        "crew = Crew(2)\n"
        "crew.map(measured_row, [np.full((40, 40, 3), 9, np.uint8)] * 8)\n"
        "print(crew._children[0]._process.pid, flush=True)\n"
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

    assert Crew().cores == 1
