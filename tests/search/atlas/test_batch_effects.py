"""Effects of origin are distinguished from effects of content."""

from __future__ import annotations

import numpy as np
import pytest

from search.atlas.batch_effects import measure
from search.schemas.items import Box, Item, item_id


def library(
    rng: np.random.Generator, by_label: float, by_site: float, n: int = 200
) -> tuple[list[Item], np.ndarray]:
    """Items of two labels from two sites, whose vectors lean on either."""
    items, rows = [], []
    for at in range(n):
        label, site = at % 2, (at // 2) % 2
        source = f"{at:032x}"
        vector = rng.normal(size=8)
        vector[0] += by_label * (2 * label - 1)
        vector[1] += by_site * (2 * site - 1)
        box = Box(x=0, y=0, w=9, h=9)
        items.append(
            Item(
                id=item_id("made", source, box),
                dataset="made",
                source=source,
                label=f"label {label}",
                site=f"site {site}",
                patient=f"P{at % 50}",
            )
        )
        rows.append(vector / np.linalg.norm(vector))
    return items, np.asarray(rows, np.float32)


def test_a_collection_ordered_by_label_shows_no_effect_of_site(rng: np.random.Generator) -> None:
    found = measure(*library(rng, by_label=6, by_site=0), "site", 10)

    assert found.share == pytest.approx(found.expected, abs=0.05)
    assert found.expected == pytest.approx(0.5, abs=0.02)
    assert found.label_share > 0.95
    assert found.robustness > 0.9
    assert found.silhouette_label > 0.5 > 0.1 > abs(found.silhouette_origin)


def test_a_collection_ordered_by_site_is_found_out(rng: np.random.Generator) -> None:
    found = measure(*library(rng, by_label=0, by_site=6), "site", 10)

    assert found.share > 0.95
    assert found.robustness < 0.1
    assert found.silhouette_origin > 0.5
    assert [one.share > one.expected + 0.3 for one in found.origins] == [True, True]


def test_sites_that_differ_in_what_they_show_are_no_effect_of_site(
    rng: np.random.Generator,
) -> None:
    """Where each site has its own labels, neighbours of one site are to be expected."""
    items, rows = library(rng, by_label=6, by_site=0)
    apart = [item.model_copy(update={"site": f"site {item.label}"}) for item in items]
    found = measure(apart, rows, "site", 10)

    assert found.share > 0.95
    assert found.expected == pytest.approx(found.share, abs=0.02)


def test_neighbours_without_a_label_are_not_counted_as_of_another(
    rng: np.random.Generator,
) -> None:
    items, rows = library(rng, by_label=0, by_site=0)
    bare = [one.model_copy(update={"label": None}) if at % 3 else one
            for at, one in enumerate(items)]  # fmt: skip
    found = measure(bare, rows, "site", 10)

    assert found.label_share == pytest.approx(found.label_expected, abs=0.1)


def test_no_neighbour_is_of_the_same_patient(rng: np.random.Generator) -> None:
    items, rows = library(rng, by_label=0, by_site=0, n=100)
    one = [item.model_copy(update={"patient": "P"}) for item in items]
    found = measure(one, rows, "site", 10)

    assert found.asked == 0
    assert found.share is None
    assert "same source or patient" in found.notes[0]


def test_robustness_cannot_be_known_where_each_patient_has_one_picture(
    rng: np.random.Generator,
) -> None:
    items, rows = library(rng, by_label=6, by_site=0)
    one = [item.model_copy(update={"patient": f"P{at}"}) for at, item in enumerate(items)]
    found = measure(one, rows, "patient", 10)

    assert (found.share, found.expected, found.robustness) == (0, 0, None)
    assert "Robustness cannot be known" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"site": None}, "No item has a site"), ({"site": "A"}, "is of 'A': nothing to compare")],
)
def test_what_cannot_be_measured_is_noted(
    rng: np.random.Generator, change: dict[str, str | None], words: str
) -> None:
    items, rows = library(rng, by_label=3, by_site=0)
    found = measure([item.model_copy(update=change) for item in items], rows, "site", 10)

    assert (found.share, found.silhouette_origin) == (None, None)
    assert words in found.notes[0]
    assert found.silhouette_label is not None
