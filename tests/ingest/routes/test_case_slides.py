"""A case model on an uploaded slide: it is answered as the same slide is once it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.made import blob, level_of, svs_description, write_tiff
from encoder.image import ImageError
from ingest.routes.case_slides import of_slide
from search.errors import BadQuestion
from search.mil.models import Trained
from search.mil.predict import predict
from search.query.context import Context
from search.schemas.items import source_id
from search.schemas.mil import MilPlan, MilQuestion
from search.schemas.questions import About
from search.service import Service
from search.settings import Settings
from train.mil.run import train
from ui.cli.ingesting import Request, perform

SIDE = 320
MODEL = "0" * 32


@pytest.fixture(name="slides", scope="module")
def _slides(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("slides"), np.random.default_rng(5)
    made = []
    for at in range(4):
        picture = blob(SIDE, SIDE, rng, share=0.7)
        if at % 2:
            picture = np.ascontiguousarray(picture[..., ::-1])
        description = svs_description(SIDE, SIDE)
        made.append(write_tiff(folder / f"{at}.svs", [level_of(picture)], description=description))
    rows = [f"{path.name},P{at}" for at, path in enumerate(made)]
    (folder / "slides.csv").write_text("\n".join(["path,patient", *rows]), encoding="utf-8")
    return made


@pytest.fixture(name="context", scope="module")
def _context(slides: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    library = tmp_path_factory.mktemp("library")
    settings = Settings(library=library, encoder="colour", _env_file=None)
    table = slides[0].parent / "slides.csv"
    assert perform(Request(paths=[table], tile_px=64), settings).report.stored > 8
    service = Service.open(settings)
    yield service.context("cells")
    service.close()


@pytest.fixture(name="trained", scope="module")
def _trained(context: Context, slides: list[Path]) -> Trained:
    values = {
        source_id(path.read_bytes()): {"tissue": "pink" if at % 2 else "blue"}
        for at, path in enumerate(slides)
    }
    return train(
        context.collection,
        MilPlan(by="source", label="tissue", values=values, pooling="mean", folds=2, epochs=3),
    )


def test_an_uploaded_slide_is_answered_as_the_stored_one(
    context: Context, trained: Trained, slides: list[Path]
) -> None:
    content = slides[1].read_bytes()
    stored = predict(context, trained, MilQuestion(model=MODEL, case=source_id(content)))
    answer = of_slide(context, trained, MilQuestion(model=MODEL), content)

    assert answer.unseen == stored.unseen == "applied"
    assert answer.networks == stored.networks == 1  # of the fold that did not see its patient
    assert answer.probabilities == pytest.approx(stored.probabilities, abs=1e-5)
    effects = {one.box: one.effect for one in answer.cells}
    for one in stored.cells:
        assert one.item is not None
        assert effects.pop(one.item.bbox) == pytest.approx(one.effect, abs=1e-4)
    assert not effects
    assert answer.complete


def test_what_is_no_slide_is_refused_in_words(context: Context, trained: Trained) -> None:
    question = MilQuestion(model=MODEL, about=About(patient="nobody"))
    with pytest.raises(ImageError, match="neither a slide that OpenSlide reads nor"):
        of_slide(context, trained, question, b"no slide at all")
    with pytest.raises(BadQuestion, match="send one slide as a file"):
        of_slide(context, trained, question.model_copy(update={"case": "C1"}), b"slide")
    with pytest.raises(BadQuestion, match="send one slide as a file"):
        of_slide(context, trained, question, None)
