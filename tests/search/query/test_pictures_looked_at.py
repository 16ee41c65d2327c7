"""One cell is one query however its picture was cut, and the answer says what was looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoder.card import FieldsUm
from encoder.contract import RGB, Encoder
from encoder.features.colour import CARD, Colour
from ingest.samples.synthetic import draw_cell
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.library.sources import PlainImages, crop, seen
from search.query.answer import answer
from search.query.explain import explain
from search.query.pictures import view_of
from search.query.resolve import view_for
from search.schemas.answers import Answer
from search.schemas.explanations import ExplainQuestion
from search.schemas.items import Box, Item, item_id
from search.schemas.questions import About, Question, Refinement
from search.service import FromAbove, Service
from search.settings import Settings

FIELDED = replace(CARD, id="colour-25", fields_um=FieldsUm(white=25.0, red=12.0))
ESTIMATE = (0.1, 0.008)
"""Micrometres per pixel, and the spread of the single cells."""


def png(pixels: RGB) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def around(side: int) -> Box:
    return Box(x=300 - side // 2, y=250 - side // 2, w=side, h=side)


@pytest.fixture(name="field", scope="module")
def _field() -> RGB:
    """A cell of 13 micrometres in the middle of 60 x 50 of speckled glass, at 0.1 per pixel."""
    noise = np.random.default_rng(0).integers(180, 240, (500, 600, 3), dtype=np.uint8)
    noise[185:315, 235:365] = draw_cell("eosinophil", 1, size=130)
    return noise


def served(folder: Path, um: float | None) -> Service:
    """Eight cells of 30 micrometres, with or without their scale."""
    encoder = Encoder(FIELDED, Colour(FIELDED))
    entries = []
    for at in range(8):
        image = draw_cell(("eosinophil", "lymphocyte")[at % 2], 50 + at, size=300)
        item = Item(
            id=item_id("d", f"{at}"), dataset="d", source=f"{at}", label=str(at % 2),
            bbox=Box(x=0, y=0, w=300, h=300), um_per_px=um,
        )  # fmt: skip
        vector = encoder.embed([seen(FIELDED, image, item)])[0]
        entries.append(Entry(item, vector, make_thumbnail(image), None))
    library = Library.open(folder)
    with library.create("cells", FIELDED) as cells:
        cells.add(entries)
    above = FromAbove(PlainImages(), lambda image: ESTIMATE)
    return Service(library, Settings(library=folder), lambda _: encoder, above)


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = served(tmp_path_factory.mktemp("scaled"), 0.1)
    yield service
    service.close()


def scores(found: Answer) -> list[float]:
    return [hit.score for hit in found.hits]


def test_a_cell_finds_the_same_from_a_narrow_and_a_wide_picture(
    service: Service, field: RGB
) -> None:
    known = Question(k=8, about=About(um_per_px=0.1))
    wide, narrower = (
        answer(service.context(), known, png(crop(field, around(side)))) for side in (340, 260)
    )
    boxes = [
        answer(
            service.context(),
            Question(k=8, crop=around(side), about=About(um_per_px=0.1, cell="white")),
            png(field),
        )
        for side in (195, 338)
    ]
    assert wide.looked_at is not None
    assert wide.looked_at.box == Box(x=45, y=45, w=250, h=250)
    assert (wide.looked_at.scale, wide.looked_at.um, wide.looked_at.field_um) == ("known", 25, 25)
    assert "Looked at 25 µm about the middle of the picture" in wide.looked_at.words
    assert not any("spans" in text for text in wide.warnings)
    for other in (narrower, *boxes):
        assert scores(other) == pytest.approx(scores(wide), abs=1e-6)


def test_a_picture_of_less_is_taken_whole_and_says_so(service: Service, field: RGB) -> None:
    small = png(field[200:300, 250:350])
    found = answer(service.context(), Question(about=About(um_per_px=0.1)), small)
    assert found.looked_at is not None
    assert found.looked_at.box == Box(x=0, y=0, w=100, h=100)
    assert "Looked at the whole picture, 10 µm" in found.looked_at.words


def test_a_scale_that_nobody_gave_is_estimated_and_marked(service: Service, field: RGB) -> None:
    found = answer(service.context(), Question(k=8, crop=around(338)), png(field)).looked_at
    assert found is not None
    assert (found.scale, found.um_per_px, found.um_per_px_spread) == ("estimated", *ESTIMATE)
    assert found.box == around(250)
    assert "estimated from red cells" in found.words


def test_a_picture_without_red_cells_has_no_scale(field: RGB) -> None:
    found = view_of(field, Question(crop=around(338)), FIELDED, lambda image: None).looked_at
    assert (found.scale, found.um, found.box) == ("unknown", None, around(338))


def test_nothing_is_estimated_where_the_collection_has_no_scale(tmp_path: Path, field: RGB) -> None:
    service = served(tmp_path, None)
    try:
        found = answer(service.context(), Question(crop=around(338)), png(field)).looked_at
    finally:
        service.close()
    assert found is not None
    assert found.words == "Scale unknown: the box was looked at whole."


def test_maps_say_which_part_of_a_picture_they_cover(service: Service, field: RGB) -> None:
    ids = (item_id("d", "0"),)
    question = ExplainQuestion(
        hits=ids, maps=("causal",), check=False, crop=around(500), about=About(um_per_px=0.1)
    )
    found = explain(service.context(), question, png(field))
    assert found.parts["query"] == pytest.approx((0.25, 0.25, 0.5, 0.5))
    assert found.parts[ids[0]] == pytest.approx((1 / 12, 1 / 12, 5 / 6, 5 / 6), abs=0.01)


def test_a_region_outside_of_the_field_of_view_is_still_found(service: Service, field: RGB) -> None:
    view = view_for(service.context(), Refinement(about=About(um_per_px=0.1)), field)
    inside, outside = Box(x=290, y=240, w=20, h=20), Box(x=10, y=10, w=20, h=20)
    assert view.around(inside)[1] == Box(x=115, y=115, w=20, h=20)
    assert np.array_equal(view.around(inside)[0], view.pixels)
    assert view.around(outside) == (view.given, outside)
