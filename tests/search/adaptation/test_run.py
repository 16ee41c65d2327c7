"""A collection is adapted to itself as a version of its own, and everything works on it."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from adaptable import SITES, encoder_of, fill_sites, picture, pictured
from PIL import Image

from ingest.smears.cells import Found
from ingest.smears.cells import FoundCell as Cell
from ingest.smears.judged import judge_field
from search.adaptation.run import AdaptPlan, CannotAdapt, adapt
from search.cases.similar import similar_cases
from search.index.contract import scroll_all
from search.library.contents import Truth
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.maintenance.reconcile import reconcile
from search.maintenance.reindex import ReindexPlan, reindex
from search.maintenance.rollback import list_versions, rollback
from search.maintenance.snapshots import restore, snapshot
from search.query.answer import answer
from search.schemas.calibration import CalibrationPlan
from search.schemas.cases import CaseQuestion
from search.schemas.items import Item, item_id
from search.schemas.questions import About, Question
from search.service import Service
from search.settings import Settings
from search.transforms.contract import CannotFit, Sample
from search.votes.calibration import Content, calibrate

BOTH = AdaptPlan(kind="align+metric", force=True)
ENCODER = encoder_of("mixed-1")


@pytest.fixture(name="filled", scope="module")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose collection was adapted; only read."""
    folder = tmp_path_factory.mktemp("adapted")
    adapt(fill_sites(folder), "cells", ENCODER, BOTH)
    return folder / "library"


@pytest.fixture(name="service", scope="module")
def _service(filled: Path) -> Iterator[Service]:
    library = Library.open(filled)
    service = Service(library, Settings(library=library.folder), encoder_of)
    yield service
    service.close()


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Library:
    return fill_sites(tmp_path)


def stored(library: Library) -> dict[str, np.ndarray]:
    """Vectors in the index of the served version, by id."""
    with library.collection("cells") as cells:
        return {one.item.id: one.vector for one in scroll_all(cells.store)}


def png(at: int, label: str, site: str) -> bytes:
    out = BytesIO()
    Image.fromarray(picture(at, label, site)).save(out, "PNG")
    return out.getvalue()


def test_a_version_with_other_vectors_serves_and_its_checks_are_kept(library: Library) -> None:
    done = adapt(library, "cells", ENCODER, AdaptPlan(kind="metric"))

    assert (done.switched, done.items, done.embedded, done.copied) == (True, 240, 0, 240)
    old, new = list_versions(library, "cells")
    results = {check["name"]: check for check in new.report["gates"]}
    assert new.served
    assert new.fingerprint != old.fingerprint == ENCODER.card.fingerprint
    assert results["transfer"]["passed"]
    assert {f"within {site}" for site in SITES} < set(results)
    assert results["fitted on"]["figures"]["labelled"] == 240


def test_the_shards_keep_the_vectors_of_the_encoder(filled: Path) -> None:
    library = Library.open(filled)
    served = library.versions("cells").current()
    truth = Truth.read(library.versions("cells").path(served.id), served.card)

    _, items, vectors = truth.table(stored=True)

    made = {item.id: image for item, image in pictured()}
    assert np.allclose(vectors, ENCODER.embed([made[item.id] for item in items]), atol=1e-6)
    assert truth.base == ENCODER.card


def test_the_plain_version_can_be_built_from_an_adapted_one_without_embedding(
    library: Library,
) -> None:
    before = stored(library)
    adapt(library, "cells", ENCODER, BOTH)

    plan = ReindexPlan(force=True)  # its neighbours are worse than those of its parent
    done = reindex(library, "cells", ENCODER, reference="mixed-1", plan=plan)

    after = stored(library)
    assert (done.embedded, done.copied) == (0, 240)
    assert all(np.array_equal(before[id], row) for id, row in after.items())


def test_a_picture_stored_twice_is_held_out_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = fill_sites(tmp_path)
    item, image = pictured()[0]
    copy = item.model_copy(
        update={"id": item_id("copy", "1"), "source": "f" * 32, "patient": None, "case": None}
    )
    [row] = ENCODER.embed([image])
    with library.collection("cells", ENCODER.card) as cells:
        cells.add([Entry(copy, row, make_thumbnail(image))])
        ids = sorted([one.item.id for one in scroll_all(cells.store)])
    seen: list[list[int]] = []

    def compared(kind: str, sample: Sample, *more: object) -> None:
        seen.append(sample.groups.tolist())
        raise CannotFit("seen")

    monkeypatch.setattr("search.adaptation.run.compare", compared)

    with pytest.raises(CannotAdapt, match="seen"):
        adapt(library, "cells", ENCODER, BOTH)

    [groups] = seen
    assert groups[ids.index(copy.id)] == groups[ids.index(item.id)]
    assert len(set(groups)) == len(pictured()) // 2


def test_adapting_twice_gives_the_same_vectors(library: Library) -> None:
    adapt(library, "cells", ENCODER, BOTH)
    once = stored(library)

    adapt(library, "cells", ENCODER, BOTH)

    assert all(np.array_equal(once[id], row) for id, row in stored(library).items())


def test_a_rollback_serves_the_vectors_of_before(library: Library) -> None:
    before = stored(library)
    adapt(library, "cells", ENCODER, BOTH)

    rollback(library, "cells")

    assert all(np.array_equal(before[id], row) for id, row in stored(library).items())


def test_what_is_ingested_later_goes_through_the_same_transform(library: Library) -> None:
    adapt(library, "cells", ENCODER, BOTH)
    image = picture(999, "blast", "lima")
    item = Item(id=item_id("drawn", "999"), dataset="drawn", source="f" * 32, site="lima")

    with library.create("cells", ENCODER.card) as cells:
        cells.add([Entry(item, ENCODER.embed([image])[0], make_thumbnail(image))])
        assert cells.adaptation is not None
        wanted = cells.adaptation.apply(ENCODER.embed([image]), np.array(["lima"]))
        (found,) = cells.store.get([item.id])
        assert np.allclose(found.vector, wanted[0], atol=1e-5)
        assert reconcile(cells, mend=False).equal


def test_a_snapshot_brings_the_transform_back(filled: Path, tmp_path: Path) -> None:
    library = Library.open(filled)
    snapshot(library, "cells", tmp_path / "backup.tar")
    elsewhere = Library.open(tmp_path / "elsewhere")

    restore(elsewhere, tmp_path / "backup.tar")

    ours, theirs = stored(library), stored(elsewhere)
    assert all(np.array_equal(ours[id], row) for id, row in theirs.items())


def test_a_stored_picture_finds_itself_when_it_is_uploaded_with_its_site(service: Service) -> None:
    item, _ = pictured()[0]
    question = Question(k=1, exclude=(), about=About(site=item.site))

    found = answer(service.context("cells"), question, png(0, "blast", "barcelona"))

    assert found.hits[0].item.id == item.id
    assert found.hits[0].score > 0.999
    assert found.alignment is not None
    assert (found.alignment.site, found.alignment.by) == ("barcelona", "named")


@pytest.mark.parametrize("site", [None, "osaka"])
def test_an_image_of_no_known_site_is_aligned_by_the_nearest_and_the_answer_says_so(
    service: Service, site: str | None
) -> None:
    question = Question(k=5, about=About(site=site))

    found = answer(service.context("cells"), question, png(3, "monocyte", "barcelona"))

    assert found.alignment is not None
    assert found.alignment.by == "nearest"
    assert found.alignment.site in SITES


def test_a_case_of_an_unknown_site_is_aligned_by_its_own_cells(service: Service) -> None:
    images = [png(1000 + at, ("blast", "monocyte")[at % 2], "lima") for at in range(24)]

    found = similar_cases(service.context("cells"), CaseQuestion(by="patient"), images)

    assert found.alignment is not None
    assert (found.alignment.site, found.alignment.by) == (None, "own cells")


def test_a_whole_field_of_an_unknown_site_is_aligned_by_its_own_cells(service: Service) -> None:
    rows = [
        [picture(1000 + at, "blast", "lima") for at in range(n, n + 6)] for n in range(0, 24, 6)
    ]
    pixels = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    cells = tuple(
        Cell(kind="white", bbox=(24 * (at % 6), 24 * (at // 6), 24, 24), score=1.0,
             touches_border=False)
        for at in range(24)
    )  # fmt: skip
    found = Found(
        cells=cells, size=(144, 96), scale=None, estimate=None, red_diameter_px=None, finder="drawn"
    )

    judged = judge_field(service.context("cells"), Question(k=5), pixels, "f" * 32, found)
    named = Question(k=5, about=About(site="lima"))
    of_site = judge_field(service.context("cells"), named, pixels, "f" * 32, found)

    assert len(judged.cells) == 24
    assert judged.alignment is not None
    assert (judged.alignment.site, judged.alignment.by) == (None, "own cells")
    assert of_site.alignment is not None
    assert (of_site.alignment.site, of_site.alignment.by) == ("lima", "named")


def test_a_calibration_of_axes_that_labels_chose_is_held_out(service: Service) -> None:
    context = service.context("cells")
    plan = CalibrationPlan(ks=(10,), sample=240)

    kept = context.calibrate(plan)
    flattered = calibrate(context.collection.store, context.collection.card, Content(""), plan)

    assert kept.refitted
    assert not flattered.refitted
    assert kept.fits[0].votes == 240
    assert kept.fits[0].accuracy < flattered.fits[0].accuracy
    assert context.fitted() == (kept, False)


def test_an_adapted_version_takes_back_what_was_removed_and_a_site_that_came_later(
    library: Library,
) -> None:
    adapt(library, "cells", ENCODER, BOTH)
    before = stored(library)
    gone = sorted(before)[:3]

    image = picture(999, "blast", "lima")
    item = Item(
        id=item_id("drawn", "999"), dataset="drawn", source="f" * 32, site="osaka", label="blast"
    )
    with library.collection("cells") as cells:
        assert cells.remove(gone) == 3
        assert cells.bring_back(gone) == 3
        cells.add([Entry(item, ENCODER.embed([image])[0], make_thumbnail(image))])

    after = stored(library)
    assert all(np.array_equal(before[id], after[id]) for id in gone)
    service = Service(library, Settings(library=library.folder), encoder_of)
    try:  # one cell of a site that came later is no obstacle to a calibration
        assert service.context("cells").calibrate(CalibrationPlan(ks=(10,), sample=100)).refitted
    finally:
        service.close()


def test_a_vector_of_the_encoder_is_adapted_and_one_of_the_version_is_taken_as_it_is(
    service: Service,
) -> None:
    item, image = pictured()[0]
    context = service.context("cells")
    adaptation = context.collection.adaptation
    assert adaptation is not None
    plain = ENCODER.embed([image])
    ready = adaptation.apply(plain, np.array([item.site]))

    for row, card in ((plain, ENCODER.card), (ready, context.collection.card)):
        question = Question(
            k=1,
            exclude=(),
            vector=tuple(row[0].tolist()),
            fingerprint=card.fingerprint,
            about=About(site=item.site),
        )
        assert answer(context, question).hits[0].item.id == item.id


def test_neighbours_of_a_stored_item_carry_its_label_more_often_than_before(
    service: Service, tmp_path: Path
) -> None:
    plain = Service(fill_sites(tmp_path), Settings(library=tmp_path / "library"), encoder_of)

    def share(of: Service) -> float:
        right = []
        for item, _ in pictured()[::8]:
            hits = answer(of.context("cells"), Question(k=10, item=item.id)).hits
            right += [hit.item.label == item.label for hit in hits]
        return float(np.mean(right))

    assert share(service) > share(plain) + 0.1
    plain.close()


def test_a_version_that_fails_at_sites_left_out_is_kept_and_not_served(library: Library) -> None:
    with library.collection("cells") as cells:
        order = np.random.default_rng(0).permutation(240)
        items = [item for item, _ in pictured()]
        cells.update(
            [
                item.model_copy(update={"label": items[other].label})
                for item, other in zip(items, order, strict=True)
            ]
        )

    done = adapt(library, "cells", ENCODER, AdaptPlan(kind="metric"))

    assert not done.switched
    assert "transfer" in done.refused_by
    assert library.versions("cells").current().card == ENCODER.card
    assert list_versions(library, "cells")[1].state == "refused"


def test_labels_that_say_the_site_are_refused_with_their_table(library: Library) -> None:
    with library.collection("cells") as cells:
        cells.update([item.model_copy(update={"label": item.site}) for item, _ in pictured()])

    with pytest.raises(CannotAdapt, match="barcelona: barcelona 80\n  lima: lima 80"):
        adapt(library, "cells", ENCODER, AdaptPlan(kind="metric"))
    assert len(list_versions(library, "cells")) == 1


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (AdaptPlan(kind="fusion"), "unknown kind of adaptation 'fusion'"),
        (AdaptPlan(kind="align", field="scanner"), "needs cells whose site is known"),
        (AdaptPlan(field="label"), "sites are distinguished by site, scanner, stain, dataset"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_words(
    library: Library, plan: AdaptPlan, words: str
) -> None:
    with pytest.raises(CannotAdapt, match=words):
        adapt(library, "cells", ENCODER, plan)
