"""What is kept of a collection, and that a write makes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from random_library import CARD, random_entries, random_service

from encoder.card import EncoderCard
from search.atlas.batch_effects import batch_effects
from search.errors import WrongEncoder
from search.evaluation.trust import trust_of_collection
from search.library.reviews import Reviews
from search.query.context import Memory
from search.schemas.calibration import CalibrationPlan
from search.schemas.cases import CaseChange, CaseRecordsWanted
from search.schemas.evaluations import TrustWanted
from search.schemas.filters import Filter
from search.service import Encoders, Service


@pytest.fixture(name="service")
def _service(tmp_path: Path, rng: np.random.Generator) -> Iterator[Service]:
    service = random_service(tmp_path, random_entries(rng, 20, 4))
    yield service
    service.close()


def test_a_value_is_computed_once_until_its_collection_is_written_to(service: Service) -> None:
    memory, computed = Memory(), []
    collection = service.collection()

    def compute() -> int:
        computed.append(1)
        return len(computed)

    first = [memory.of(collection, ("n",), compute) for _ in range(3)]
    id = collection.store.scroll(limit=1).items[0].item.id
    collection.remove([id])
    after = memory.of(collection, ("n",), compute)

    assert (first, after) == ([1, 1, 1], 2)


def test_what_was_remembered_of_an_earlier_state_takes_no_memory(
    service: Service, rng: np.random.Generator
) -> None:
    context = service.context()
    collection = context.collection
    item = collection.store.scroll(limit=1).items[0].item
    sizes = []
    for at in range(5):
        Reviews(collection.versions).add([(item, f"L{at}", None)], "AB")
        assert context.reviewed()[item.id].label == f"L{at}"
        collection.update([item.model_copy(update={"site": f"S{at}"})])
        context.count()
        context.calibration()
        sizes.append(len(context.memory))

    assert len(set(sizes)) == 1


def test_the_oldest_values_go_when_there_are_too_many(service: Service) -> None:
    memory = Memory(most=2)
    collection = service.collection()

    for key in ("a", "b", "a", "c"):
        memory.of(collection, (key,), lambda: 1)

    assert memory.of(collection, ("a",), lambda: 2) == 1
    assert memory.of(collection, ("b",), lambda: 2) == 2


def test_counts_hashes_and_calibration_follow_every_way_to_write(
    service: Service, rng: np.random.Generator
) -> None:
    context = service.context()
    collection = context.collection
    item = collection.store.scroll(limit=1).items[0].item
    where = Filter(site=(str(item.site),))
    whole, of_site = context.count(), context.count(where)

    collection.update([item.model_copy(update={"site": "elsewhere"})])
    moved = context.count(where)
    collection.remove([item.id])
    removed = context.count()
    collection.add(random_entries(rng, 5, 2))

    assert (moved, removed) == (of_site - 1, whole - 1)
    assert context.count() > removed
    assert service.context().count() == context.count()


def test_a_picture_without_the_encoder_of_a_collection_is_refused_in_words(
    service: Service,
) -> None:
    collection = service.collection()
    here = EncoderCard(id="another", architecture="none", dim=CARD.dim)
    loaded = Encoders(lambda reference: SimpleNamespace(card=here))  # type: ignore[arg-type,return-value]

    with pytest.raises(WrongEncoder) as refusal:
        loaded.of(collection)

    words = str(refusal.value)
    assert words.startswith("a new picture cannot be compared with the cells of collection 'cells'")
    assert CARD.title in words
    assert f"but {here.title} is installed here" in words


def test_who_is_of_one_patient_is_one_rule_whether_items_or_records_name_it(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    named = [one for one in random_entries(rng, 200, 8) if one.item.case is not None]
    bare = [replace(one, item=one.item.model_copy(update={"patient": None})) for one in named]
    services = [random_service(tmp_path / name, some) for name, some in (("a", named), ("b", bare))]
    contexts = [service.context() for service in services]
    last = contexts[1]
    before = (last.calibrate(CalibrationPlan(ks=(5,))), last.calibration()[1])
    rows = {str(one.item.case): str(one.item.patient) for one in named}
    wanted = CaseRecordsWanted(
        changes=tuple(CaseChange(case=case, patient=patient) for case, patient in rows.items())
    )
    last.collection.cases.change(wanted, last.collection.store, "caller")
    stale = last.calibration()[1]

    figures = [
        (
            trust_of_collection(one.collection, TrustWanted(most=50)),
            batch_effects(one.collection.folder, CARD, one.patients()),
            one.familiar(),
            one.calibrate(CalibrationPlan(ks=(5,))).fits,
        )
        for one in contexts
    ]
    fars = [found[2].far if found[2] else None for found in figures]
    for service in services:
        service.close()

    assert figures[0][:2] == figures[1][:2]
    assert fars[0] == fars[1] is not None
    assert figures[0][3] == figures[1][3] != before[0].fits
    assert (before[1], stale, last.calibration()[1]) == ("applied", "stale", "applied")
