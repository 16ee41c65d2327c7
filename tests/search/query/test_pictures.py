"""Uploaded pictures are decoded within one budget of memory, whatever is sent at once."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from random_library import CARD, random_entries, random_service

from encoder.contract import RGB
from encoder.image import NotAnImage, TooManyPixels
from search.errors import Busy
from search.query.pictures import BATCH_PIXELS, BodyMemory, MemoryBudget, Pictures
from search.settings import Settings

MANY = 3_000_000_000


def png(width: int, height: int = 1000) -> bytes:
    out = BytesIO()
    Image.new("L", (width, height), 200).save(out, "PNG")
    return out.getvalue()


def test_room_is_waited_for_and_given_back() -> None:
    budget, order = MemoryBudget(100), []

    def second() -> None:
        with budget.use(60):
            order.append("second")

    with budget.use(60):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    with budget.use(100):
        pass


def test_who_comes_again_for_much_lets_others_go_first() -> None:
    budget, order = MemoryBudget(100), []

    def other() -> None:
        with budget.use(90):
            order.append("other")

    thread = threading.Thread(target=other)
    with budget.use(90):
        thread.start()
        while not budget._line:
            time.sleep(0.001)
        with budget.use(10):
            order.append("small")  # does not stand in line
    with budget.use(90):
        order.append("again")
    thread.join(5)
    assert order == ["small", "other", "again"]


def test_a_call_that_waits_too_long_is_refused_with_a_time_to_retry() -> None:
    budget = MemoryBudget(100, patience_s=0.05)
    with budget.use(60), pytest.raises(Busy, match="busy with other uploads"), budget.use(60):
        pass
    with budget.use(60):
        pass


def test_only_so_many_wait_at_once_because_each_occupies_a_thread() -> None:
    budget, refused = MemoryBudget(10, patience_s=1.0), []

    def wait() -> None:
        try:
            with budget.use(10):
                pass
        except Busy:
            refused.append(time.monotonic())

    with budget.use(10):
        began = time.monotonic()
        threads = [threading.Thread(target=wait) for _ in range(12)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert len([at for at in refused if at - began < 0.3]) == 4
    for thread in threads:
        thread.join(5)
    assert len(refused) == 4


def test_more_than_the_whole_budget_is_let_in_alone() -> None:
    budget = MemoryBudget(100, patience_s=0.05)
    with budget.use(500), pytest.raises(Busy), budget.use(1):
        pass
    with budget.use(1), pytest.raises(Busy), budget.use(500):
        pass


def test_a_body_takes_memory_as_it_comes_in_and_never_waits() -> None:
    budget = MemoryBudget(100)
    one, other = BodyMemory(budget), BodyMemory(budget)
    one.take(60)
    began = time.monotonic()
    with pytest.raises(Busy):
        other.take(60)
    assert time.monotonic() - began < 1
    one.take(30)
    one.give_back()
    other.take(60)
    other.take(90)  # alone, it may be larger than the whole
    other.give_back()
    with budget.use(100):
        pass


def test_many_pictures_come_in_batches_of_few_pixels() -> None:
    pictures = Pictures(MemoryBudget(1 << 30), 50_000_000, MANY)
    sent = [(f"image {at}", png(3000)) for at in range(6)] + [("small", png(9, 9))] * 40

    sizes = [[one.shape[0] * one.shape[1] for one in batch] for batch in pictures.batches(sent)]

    assert sum(len(batch) for batch in sizes) == 46
    assert max(sum(batch) for batch in sizes) <= BATCH_PIXELS
    assert max(len(batch) for batch in sizes) <= 32


def test_all_pictures_of_one_call_are_counted_before_the_first_is_decoded() -> None:
    pictures = Pictures(MemoryBudget(1), 50_000_000, 12_000_000)  # no room to decode any
    pictures.check_together([png(4000)] * 3)
    with pytest.raises(TooManyPixels, match="4 images have 16 million pixels together; at most 12"):
        pictures.check_together([png(4000)] * 4)


def test_memory_is_counted_for_stains_and_for_cells_that_are_looked_for() -> None:
    budget = Watched(1 << 30)
    pictures = Pictures(budget, 50_000_000, MANY)
    for some, finding, size in (
        (pictures, False, 18 * 4_000_000),
        (pictures, True, (18 + 25.165824) * 4_000_000),
        (pictures.for_card(replace(CARD, stain="macenko-1")), False, 156 * 4_000_000),
    ):
        with some.opened(png(4000), "the field", finding=finding):
            assert budget.peak == size
        budget.peak = 0


def test_what_is_no_picture_or_too_large_is_refused_under_its_name() -> None:
    pictures = Pictures(MemoryBudget(1 << 30), 1_000_000, MANY)
    with pytest.raises(NotAnImage, match="image 1 is not"):
        list(pictures.batches([("image 0", png(9)), ("image 1", b"no")]))
    with pytest.raises(TooManyPixels, match="the field has 5000 x 1000"):
        pictures.opened(png(5000), "the field").__enter__()


class Watched(MemoryBudget):
    """Remembers the most that was taken at once."""

    peak = 0

    def take(self, size: int, patience_s: float | None = None, mine: int = 0) -> None:
        super().take(size, patience_s, mine)
        self.peak = max(self.peak, self._used)


def test_a_form_of_many_large_pictures_takes_one_batch_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.api.app import create_app

    service = random_service(tmp_path, random_entries(np.random.default_rng(0)))
    budget = Watched(1 << 30)
    monkeypatch.setattr(service, "pictures", Pictures(budget, 50_000_000, MANY))

    class Encoder:
        card = service.context().collection.card

        def embed(self, images: list[RGB]) -> np.ndarray:
            return np.ones((len(images), self.card.dim), np.float32)

    monkeypatch.setattr(service.encoders, "of", lambda _collection: Encoder())
    files = [("images", (f"{at}.png", png(4000), "image/png")) for at in range(20)]
    with TestClient(create_app(service), base_url="http://localhost") as client:
        answer = client.post(
            "/v1/cases/similar", data={"question": json.dumps({"k": 3})}, files=files
        )
    service.close()

    assert answer.status_code == 200, answer.text
    assert 0 < budget.peak <= 18 * BATCH_PIXELS


def test_the_parts_of_the_memory_fit_into_the_whole() -> None:
    settings = Settings()
    assert settings.body_bytes + settings.picture_bytes <= 0.6 * settings.memory_mb * 2**20


def test_a_deep_picture_that_comes_out_black_is_remarked_in_the_answer(tmp_path: Path) -> None:
    from search.query.resolve import resolve
    from search.schemas.questions import Question

    service = random_service(tmp_path, random_entries(np.random.default_rng(0)))

    class Encoder:
        card = service.context().collection.card

        def embed(self, images: list[RGB]) -> np.ndarray:
            return np.ones((len(images), self.card.dim), np.float32)

    service.encoders.of = lambda _collection: Encoder()  # type: ignore[method-assign]
    deep = np.full((40, 40), 900, np.uint16)
    deep[0, 0] = 60_000
    out = BytesIO()
    Image.fromarray(deep).save(out, "PNG")
    query = resolve(service.context(), Question(k=1), out.getvalue())
    service.close()

    assert any("almost black" in words for words in query.warnings)
