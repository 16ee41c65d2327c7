"""A small library of random vectors, patients, cases and labels, with a service over it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from encoder.card import EncoderCard
from search.library.library import Library
from search.library.shards import Entry
from search.schemas.items import Box, Item, item_id
from search.service import Service
from search.settings import Settings

CARD = EncoderCard(id="random", architecture="random-v1", dim=6)
LABELS = ("BL", "MY", "SNE", "LY")


def thumbnail(rng: np.random.Generator) -> bytes:
    """A picture that looks like no other."""
    out = BytesIO()
    rough = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    rough.resize((48, 48), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def random_entries(rng: np.random.Generator, n: int = 60, patients: int = 6) -> list[Entry]:
    """Items of a few patients; some without a patient, a case, a site or a label.

    A patient has up to two cases and a case up to two sources; vectors lean on the label.
    """
    centres = rng.normal(size=(len(LABELS), CARD.dim))
    made = []
    for at in range(n):
        who, which, slide = (int(x) for x in rng.integers(0, (patients, 2, 2)))
        label = int(rng.integers(len(LABELS)))
        source = f"{who:08x}{which:08x}{slide:08x}{0:08x}"
        box = Box(x=at, y=0, w=10, h=10)
        known = rng.random() < 0.85
        item = Item(
            id=item_id("random", source, box),
            dataset="random",
            source=source,
            bbox=box,
            label=LABELS[label] if rng.random() < 0.9 else None,
            patient=f"P{who}" if known else None,
            case=f"P{who}-{which}" if known and rng.random() < 0.9 else None,
            site=f"site {who % 3}" if rng.random() < 0.9 else None,
        )
        vector = centres[label] + rng.normal(size=CARD.dim)
        if made and rng.random() < 0.1:  # the same picture again, under another item
            vector = made[-1].vector
        made.append(Entry(item, np.asarray(vector, np.float32), thumbnail(rng)))
    return made


def random_service(folder: Path, entries: list[Entry]) -> Service:
    """A service over one collection that holds them."""
    settings = Settings(library=folder / "library")
    library = Library.open(settings.library)
    with library.create("cells", CARD) as cells:
        cells.add(entries)
    return Service(library, settings)
