"""A box drawn on the shown query, in pixels of the query."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from search.schemas.items import Box
from ui.address import Searching
from ui.screens.regions import in_query, with_region
from ui.session.uploads import Upload


def test_a_box_is_scaled_to_the_picture_and_moved_by_what_hangs_over_the_border() -> None:
    drawn = Box(x=10, y=20, w=30, h=40)

    assert in_query(drawn, (100, 100), None, (200, 200)) == Box(x=20, y=40, w=60, h=80)
    assert in_query(drawn, (100, 100), None, None) == drawn
    hanging = Box(x=-50, y=0, w=100, h=100)  # only its right half is shown
    assert in_query(drawn, (50, 100), hanging, (500, 400)) == Box(x=60, y=20, w=30, h=40)
    wide = Box(x=80, y=90, w=30, h=30)
    assert in_query(wide, (100, 100), None, (100, 100)) == Box(x=80, y=90, w=20, h=10)


def test_the_part_is_drawn_where_it_lies_on_a_cell_at_the_border() -> None:
    out = BytesIO()
    Image.new("RGB", (400, 300), (200, 200, 200)).save(out, "PNG")
    upload = Upload.of(out.getvalue(), "field.png")
    hanging = Box(x=-40, y=100, w=80, h=80)  # 40 of its 80 columns are shown
    search = Searching(upload=upload.id, crop=hanging, region=Box(x=50, y=20, w=20, h=40))

    shown = with_region(upload.part(hanging), search, upload)

    with Image.open(BytesIO(shown)) as image:
        changed = np.abs(np.asarray(image.convert("RGB")).astype(int) - 200).max(axis=2) > 60
    rows, columns = np.nonzero(changed)
    by = changed.shape[1] / 40
    assert abs(columns.min() / by - 10) < 2
    assert abs(rows.min() / by - 20) < 2
    assert abs(rows.max() / by - 60) < 2
    assert with_region(shown, search.model_copy(update={"region": None}), upload) == shown
