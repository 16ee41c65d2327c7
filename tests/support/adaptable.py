"""A small library of pictures from three sites, whose labels an adaptation tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from versioned import mixed

from encoder.combined import combined
from encoder.contract import RGB, Encoder
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.schemas.items import Item, item_id

SITES = ("barcelona", "lima", "zagreb")
EACH = 80


def encoder_of(id: str) -> Encoder:
    """The encoder `mixed-1`, or that and `mixed-2` as one where two are named."""
    one = mixed(1, dim=16)
    return combined([one, mixed(2, dim=12)]) if "+" in id else one


def picture(at: int, label: str, site: str) -> RGB:
    """Noise; a faint dark corner for a blast, and a strong tint of each site."""
    rng = np.random.default_rng(at)
    image = rng.normal(150, 60, (4, 4, 3)).repeat(6, axis=0).repeat(6, axis=1)
    image[:, :, SITES.index(site)] += 60
    if label == "blast":
        image[:12, :12] -= 60
    return image.clip(0, 255).astype(np.uint8)


def pictured() -> list[tuple[Item, RGB]]:
    """Items of two labels, two cells a patient, with their pictures."""
    found = []
    for at in range(EACH * len(SITES)):
        label, site = ("blast", "monocyte")[at // 2 % 2], SITES[at // EACH]
        item = Item(
            id=item_id("drawn", str(at)),
            dataset="drawn",
            source=f"{at // 2:032x}",
            label=label,
            site=site,
            patient=f"patient {at // 2}",
            case=f"case {at // 2}",
        )
        found.append((item, picture(at, label, site)))
    return found


def fill_sites(folder: Path, id: str = "mixed-1") -> Library:
    """A library with the collection `cells` of all of them, as an encoder sees them."""
    library = Library.open(folder / "library")
    encoder = encoder_of(id)
    pairs = pictured()
    vectors = encoder.embed([image for _, image in pairs])
    with library.create("cells", encoder.card, id) as cells:
        cells.add(
            [
                Entry(item, row, make_thumbnail(image))
                for (item, image), row in zip(pairs, vectors, strict=True)
            ]
        )
    return library
