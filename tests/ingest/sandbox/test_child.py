"""Children may die; the pool and the run go on."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.sandbox.messages import (
    Batch,
    Failed,
    Finished,
    PoolClosed,
    SourceDied,
    SourceRefused,
    Task,
)
from ingest.sandbox.pool import GIB, ReaderPool, death


def drill(what: str = "echo", n: int = 1, source: str = "a") -> Task:
    return Task(reader="ingest.sandbox.child:drill", source=source, args={"what": what, "n": n})


@pytest.fixture(name="pool", scope="module")
def _pool():
    with ReaderPool(2, timeout_s=20, limit_bytes=2 * GIB) as pool:
        yield pool


def test_pixels_and_facts_come_back_in_order(pool):
    seen = [(b.facts["number"], np.array(b.images)) for b in pool.read(drill(n=9))]

    assert [number for number, _ in seen] == list(range(9))
    for number, images in seen:
        assert images.shape == (1, 4 + number, 5, 3)
        assert (images == number).all()


def test_images_of_a_batch_cannot_be_written_to(pool):
    for batch in pool.read(drill()):
        with pytest.raises(ValueError, match="read-only"):
            batch.images[0][...] = 0


@pytest.mark.parametrize(
    ("what", "words"), [("abort", "SIGABRT"), ("exit", "status 7"), ("hoard", "more memory")]
)
def test_a_death_or_a_hoard_is_an_error_of_that_file_alone(pool, what, words):
    with pytest.raises((SourceDied, SourceRefused), match=words) as caught:
        list(pool.read(drill(what, source="bad")))

    assert caught.value.source == "bad"
    assert caught.value.note == what
    assert len(list(pool.read(drill(n=3)))) == 3


def test_a_reader_that_hangs_is_stopped():
    with ReaderPool(1, timeout_s=4) as pool:
        with pytest.raises(SourceDied, match="took more than"):
            list(pool.read(drill("hang")))

        assert pool.deaths == 1
        assert len(list(pool.read(drill()))) == 1


def test_every_task_of_many_ends_exactly_once(pool):
    whats = ["echo", "abort", "echo", "exit", "echo"]
    ends = {}
    for event in pool.read_all(drill(w, 5, str(i)) for i, w in enumerate(whats)):
        if not isinstance(event, Batch):
            assert event.task.source not in ends
            ends[event.task.source] = event

    assert [isinstance(ends[str(i)], Finished) for i in range(5)] == [w == "echo" for w in whats]
    assert isinstance(ends["1"], Failed)


def test_leaving_a_file_half_read_leaves_the_pool_usable(pool):
    for _ in pool.read(drill(n=50)):
        break

    assert len(list(pool.read(drill(n=2)))) == 2


@pytest.mark.parametrize(
    "reader", ["os:system", "ingest.sandbox.child:nothing", "ingest.nothing:x", ""]
)
def test_only_functions_of_ingest_are_readers(pool, reader):
    with pytest.raises(SourceRefused, match="no reader"):
        list(pool.read(Task(reader=reader, source="a")))


def test_a_closed_pool_says_so():
    pool = ReaderPool(1)
    pool.close()
    pool.close()

    with pytest.raises(PoolClosed):
        list(pool.read(drill()))


def test_exit_statuses_are_told_in_words():
    assert "damaged" in death(-6, GIB)
    assert "want of memory" in death(-9, GIB)
    assert "SIGSEGV" in death(-11, GIB)
    assert "SIGTERM" in death(-15, GIB)
