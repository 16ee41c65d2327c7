"""An ingest as a person runs it, asked afterwards, and stopped by what stops it in a lab."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.made import blob, glass, level_of, svs_description, write_tiff
from search.records import Question
from search.service import Service
from search.settings import Settings
from search.store import scroll_all
from ui.ingesting import Request, perform


def slide(path: Path, rng: np.random.Generator) -> Path:
    picture = blob(256, 384, rng, share=0.5)
    return write_tiff(path, [level_of(picture)], description=svs_description(384, 256))


def png(image: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def settings_of(folder: Path) -> Settings:
    return Settings(library=folder / "library", encoder="colour", _env_file=None)


def test_a_query_of_a_normalised_collection_is_normalised_too(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = slide(tmp_path / "a.svs", rng)
    settings = settings_of(tmp_path)
    run = perform(Request(paths=[str(path)], tile_px=64, stain_norm="macenko"), settings)
    assert run.report.stored > 3
    pixels = np.asarray(Image.open(path).convert("RGB"))

    service = Service.open(settings)
    try:
        collection = service.collection()
        stored = [one.item for one in scroll_all(collection.store)]
        box = stored[len(stored) // 2].bbox
        assert box is not None
        query = pixels[box.y : box.y + box.h, box.x : box.x + box.w]
        answer = service.search(Question(k=3, exclude=()), png(query))
        blank = service.search(Question(k=3), png(glass(64, 64, rng)))
    finally:
        service.close()

    assert collection.card.stain == "macenko-1"
    assert answer.hits[0].item.id == stored[len(stored) // 2].id
    assert answer.hits[0].score > 0.99999
    assert not any("normalisation" in warning for warning in answer.warnings)
    assert any("macenko-1" in warning and "as it is" in warning for warning in blank.warnings)
