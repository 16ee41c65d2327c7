"""Cells found through the service: offered as squares that ask as stored cells do."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from live import Live
from PIL import Image

from search.client.client import Client
from search.client.transport import ServiceError
from search.schemas.items import Box, source_id
from search.schemas.questions import About, Question


@pytest.fixture(name="client")
def _client(live: Live) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


@pytest.fixture(name="smear")
def _smear(live: Live) -> Path:
    return next(iter(sorted((live.folder / "fields").rglob("*.png"))))


def test_the_cells_of_a_field_are_found_and_nothing_is_stored(client: Client, smear: Path) -> None:
    before = client.collections()

    found = client.find_cells(smear)

    assert {cell.kind for cell in found.cells} >= {"white", "red"}
    with Image.open(smear) as image:
        assert (found.width, found.height) == image.size
    assert found.um_per_px_origin == "estimate"
    assert client.collections() == before


def test_a_whole_field_is_judged_as_its_cells_are_one_by_one(client: Client, smear: Path) -> None:
    judged = client.judge_field(Question(k=5), smear)

    found = client.find_cells(smear)
    white = [cell for cell in found.cells if cell.kind == "white"]
    assert [one.cell for one in judged.cells] == white
    about = About(um_per_px=found.um_per_px)
    for one in judged.cells[:3]:
        alone = client.vote(Question(k=5, crop=one.cell.crop, about=about), smear)
        assert (one.label, one.state, one.reason) == (alone.vote.label, alone.state, alone.reason)
        assert one.nearest == alone.answer.hits[0].item
    percents = [one.percent for one in judged.counts if one.percent is not None]
    assert sum(percents) == pytest.approx(100 if judged.leukocytes else 0)
    sure = sum(one.state == "sure" for one in judged.cells)
    assert sum(one.cells for one in judged.counts) == sure == len(white) - judged.unsure
    assert judged.red == sum(cell.kind == "red" for cell in found.cells)


def test_a_field_is_judged_from_its_picture_alone(client: Client, smear: Path) -> None:
    with pytest.raises(ServiceError, match="from the picture alone"):
        client.judge_field(Question(crop=Box(x=0, y=0, w=9, h=9)), smear)


def test_a_given_scale_is_kept(client: Client, smear: Path) -> None:
    found = client.find_cells(smear, um_per_px=0.15, most=3)

    assert (found.um_per_px, found.um_per_px_origin) == (0.15, "manifest")
    assert len(found.cells) == 3
    assert found.left_out > 0


def test_a_found_square_asks_as_the_same_pixels_cut_beforehand_do(
    client: Client, smear: Path
) -> None:
    found = client.find_cells(smear)
    inside = next(
        cell.crop
        for cell in found.cells
        if cell.crop.x >= 0
        and cell.crop.y >= 0
        and cell.crop.x + cell.crop.w <= found.width
        and cell.crop.y + cell.crop.h <= found.height
    )
    with Image.open(smear) as image:
        part = image.crop((inside.x, inside.y, inside.x + inside.w, inside.y + inside.h))
        out = io.BytesIO()
        part.save(out, "PNG")

    by_box = client.search(Question(crop=inside, k=5, exclude=()), smear)
    by_pixels = client.search(Question(k=5, exclude=()), out.getvalue())

    assert [hit.item.id for hit in by_box.hits] == [hit.item.id for hit in by_pixels.hits]
    assert [hit.score for hit in by_box.hits] == [hit.score for hit in by_pixels.hits]


def test_a_part_of_a_stored_picture_still_leaves_that_picture_out(
    client: Client, live: Live
) -> None:
    image = next(iter(sorted((live.folder / "cells").rglob("*.png"))))
    part = Box(x=8, y=8, w=60, h=60)

    answer = client.search(Question(crop=part, k=1000), image)
    own = client.search(Question(crop=part, k=1000, exclude=()), image)

    source = source_id(image.read_bytes())
    assert source in {hit.item.source for hit in own.hits}
    assert source not in {hit.item.source for hit in answer.hits}


@pytest.mark.parametrize(
    "box", [Box(x=99_999, y=0, w=5, h=5), Box(x=0, y=0, w=99_999, h=9), Box(x=-9, y=0, w=9, h=9)]
)
def test_a_crop_that_is_not_on_the_image_is_refused(client: Client, smear: Path, box: Box) -> None:
    with pytest.raises(ServiceError, match="does not lie on the image"):
        client.search(Question(crop=box), smear)


def test_a_crop_without_an_image_is_refused(client: Client, live: Live) -> None:
    item = client.search(Question(), next(live.folder.rglob("*.png"))).hits[0].item.id

    with pytest.raises(ServiceError, match="send the image with it"):
        client.search(Question(item=item, crop=Box(x=0, y=0, w=5, h=5)))


def test_a_blank_field_has_no_cells(client: Client) -> None:
    out = io.BytesIO()
    Image.fromarray(np.full((300, 400, 3), 240, np.uint8)).save(out, "PNG")

    found = client.find_cells(out.getvalue())

    assert found.cells == ()
    assert found.um_per_px is None


@pytest.mark.parametrize(
    ("content", "status"), [(b"%PDF-1.7", 415), (b"", 415)], ids=["a PDF", "nothing"]
)
def test_what_is_no_picture_is_refused_in_words(
    client: Client, content: bytes, status: int
) -> None:
    with pytest.raises(ServiceError) as caught:
        client.find_cells(content)

    assert caught.value.status == status


def test_json_without_a_picture_is_refused_in_words(live: Live) -> None:
    response = httpx.post(f"{live.url}/v1/cells", json={"um_per_px": 0.2}, trust_env=False)

    assert response.status_code == 422
    assert "send the field as a picture" in response.json()["detail"]
