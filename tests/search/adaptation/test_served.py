"""Maps, batch effects, duplicates, explanations and calibration work on an adapted version."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from adaptable import SITES, encoder_of, fill_sites, picture, pictured
from PIL import Image

from search.adaptation.run import AdaptPlan, CannotAdapt, adapt
from search.atlas.batch_effects import batch_effects
from search.atlas.maps import compute_map
from search.evaluation.case_groups import compare_groups
from search.library.contents import Truth
from search.library.library import Library
from search.query.answer import answer, answer_with_vote
from search.query.caveats import IN_SAMPLE, KINDS_IN_SAMPLE
from search.query.explain import explain
from search.schemas.calibration import CalibrationPlan
from search.schemas.cases import GroupsQuestion
from search.schemas.explanations import ExplainQuestion
from search.schemas.questions import About, Question
from search.service import Service
from search.settings import Settings

BOTH = "mixed-1+mixed-2"
CHAIN = AdaptPlan(kind="fuse+align+metric", force=True)


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A collection of two encoders, adapted by a chain of all kinds; only read."""
    library = fill_sites(tmp_path_factory.mktemp("served"), BOTH)
    adapt(library, "cells", encoder_of(BOTH), CHAIN)
    service = Service(library, Settings(library=library.folder), encoder_of)
    yield service
    service.close()


def png(at: int, label: str, site: str) -> bytes:
    out = BytesIO()
    Image.fromarray(picture(at, label, site)).save(out, "PNG")
    return out.getvalue()


def test_two_encoders_are_fused_aligned_and_told_labels_in_one_fingerprint(
    service: Service,
) -> None:
    card = service.context("cells").collection.card

    assert str(card.adapted).startswith("fuse+align+metric ")
    assert card.id == BOTH
    assert card.fingerprint != encoder_of(BOTH).card.fingerprint


def test_a_stored_picture_finds_itself_through_the_whole_chain(service: Service) -> None:
    item, _ = pictured()[0]
    question = Question(k=1, exclude=(), about=About(site=item.site))

    found = answer(service.context("cells"), question, png(0, "blast", "barcelona"))

    assert found.hits[0].item.id == item.id
    assert found.hits[0].score > 0.999


def test_a_map_is_of_the_adapted_vectors(service: Service) -> None:
    collection = service.context("cells").collection

    drawn = compute_map(collection.folder, collection.card, "pca")

    truth = Truth.read(collection.folder, collection.card)
    _, items, vectors = truth.table()
    order = {item.id: at for at, item in enumerate(items)}
    rows = vectors[[order[id] for id in drawn.ids]]
    assert vectors.shape[1] == collection.card.dim
    wanted = (rows - drawn.axes[0]) @ drawn.axes[1:].T
    assert np.allclose(drawn.places, wanted, atol=1e-4)


def test_batch_effects_are_smaller_than_before(service: Service) -> None:
    collection = service.context("cells").collection
    before = service.library.versions("cells").all()[0]

    old = batch_effects(service.library.versions("cells").path(before.id), before.card, {})
    new = batch_effects(collection.folder, collection.card, {})

    assert new.share is not None
    assert old.share is not None
    assert new.share < old.share


def test_the_same_picture_is_still_taken_for_a_duplicate(service: Service) -> None:
    item, _ = pictured()[0]

    found = answer(
        service.context("cells"),
        Question(k=3, about=About(site=item.site)),
        png(0, "blast", "barcelona"),
    )

    assert item.id not in [hit.item.id for hit in found.hits]


def test_an_explanation_is_of_the_cosine_that_ranked_the_hit(service: Service) -> None:
    context = service.context("cells")
    image, about = png(500, "blast", "lima"), About(site="lima")
    (hit,) = answer(context, Question(k=1, about=about), image).hits
    wanted = ExplainQuestion(hits=(hit.item.id,), maps=("causal", "colours"), about=about)

    found = explain(context, wanted, image)

    assert found.pairs[0].cosine == pytest.approx(hit.score, abs=1e-4)
    assert [one.kind for one in found.pairs[0].maps] == ["causal", "causal"]
    assert found.fingerprint == context.collection.card.fingerprint


def test_a_calibration_is_of_the_adapted_version(service: Service) -> None:
    context = service.context("cells")

    fitted = context.calibrate(CalibrationPlan(ks=(5,), sample=100))

    assert fitted.fingerprint == context.collection.card.fingerprint
    assert fitted.unit == "patient"
    assert fitted.fit(5) is not None
    assert context.fitted() == (fitted, False)


def test_a_collection_of_one_encoder_cannot_be_fused(tmp_path: Path) -> None:
    library: Library = fill_sites(tmp_path)

    with pytest.raises(CannotAdapt, match="needs vectors of two encoders"):
        adapt(library, "cells", encoder_of("mixed-1"), AdaptPlan(kind="fuse"))


def test_sites_are_those_of_the_library(service: Service) -> None:
    adaptation = service.context("cells").collection.adaptation
    assert adaptation is not None
    assert adaptation.sites == SITES


def test_a_vote_on_a_stored_item_says_that_its_own_label_chose_the_axes(service: Service) -> None:
    context = service.context("cells")
    context.calibrate(CalibrationPlan(ks=(5,), sample=100))
    stored = context.collection.store.scroll(None, 1).items[0].item
    question = Question(k=5, item=stored.id)

    own = answer_with_vote(context, question)
    new = answer_with_vote(
        context, Question(k=5, about=About(site="lima", patient="new")), png(500, "blast", "lima")
    )

    assert stored.label is not None
    assert (own.answer.in_sample, own.calibration, own.probability) == (
        True,
        "other question",
        None,
    )
    assert IN_SAMPLE in own.answer.warnings
    assert (new.answer.in_sample, new.calibration) == (False, "applied")
    assert IN_SAMPLE not in new.answer.warnings


def test_groups_of_labelled_cells_say_that_their_own_labels_chose_the_axes(
    service: Service,
) -> None:
    question = GroupsQuestion(
        first_cases=("case 0", "case 2"), second_cases=("case 1", "case 3"), prototypes=2,
        resamples=100,
    )  # fmt: skip

    found = compare_groups(service.context("cells"), question)

    assert found.in_sample
    assert found.warnings[-1] == KINDS_IN_SAMPLE
