"""A case model on whole fields: their cells are found, placed, and told by what they did."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live import Live
from random_library import random_entries, random_service

from ingest.routes.case_models import stored_patient
from search.client.client import Client
from search.client.transport import ServiceError
from search.schemas.cases import CaseChange, CaseRecordsWanted
from search.schemas.filters import Filter
from search.schemas.items import source_id
from search.schemas.mil import MilModel, MilPlan, MilQuestion
from search.schemas.questions import About


@pytest.fixture(name="model", scope="module")
def _model(live: Live) -> MilModel:
    with Client(live.url) as client:
        labels = sorted(client.facets("cells", "label", 50))[:2]
        values = {
            source: {"finding": label}
            for label in labels
            for source in client.facet("source", Filter(label=(label,)), "cells")
        }
        plan = MilPlan(
            by="source", label="finding", values=values, pooling="mean", folds=2, epochs=3
        )
        return client.trained_model("cells", plan, every_s=0.05)


def test_cells_of_fields_are_found_and_placed(live: Live, model: MilModel) -> None:
    fields = sorted((live.folder / "fields").rglob("*.png"))[:1]
    with Client(live.url) as client:
        before = client.collections()
        about = About(patient="nobody")
        question = MilQuestion(model=model.id, order="effect", about=about)
        answer = client.predict_fields("cells", question, [fields[0], fields[0]])
        white = [one.crop for one in client.find_cells(fields[0]).cells if one.kind == "white"]

        assert model.kinds == ()
        for at in (0, 1):
            boxes = [one.box for one in answer.cells if one.field == at]
            assert sorted(boxes, key=str) == sorted(white, key=str)
        assert answer.looked_at == 2 * len(white)
        assert answer.unseen == "applied"
        assert client.collections() == before


def test_stored_pictures_of_two_patients_are_no_case(live: Live, model: MilModel) -> None:
    with (live.folder / "manifest.csv").open(encoding="utf-8") as file:
        of = {row["patient"]: live.folder / row["path"] for row in csv.DictReader(file)}
    with (
        Client(live.url) as client,
        pytest.raises(ServiceError, match="stored of 2 patients or more"),
    ):
        client.predict_fields("cells", MilQuestion(model=model.id), list(of.values())[:2])


def test_a_stored_field_brings_the_patient_whom_only_a_record_names(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    content = b"a field"
    (entry,) = random_entries(rng, 1)
    facts = {"source": source_id(content), "case": "C1", "patient": None}
    service = random_service(tmp_path, [replace(entry, item=entry.item.model_copy(update=facts))])
    cells, change = service.collection(), CaseChange(case="C1", patient="P7")
    before = stored_patient(service.context(), [content])
    cells.cases.change(CaseRecordsWanted(changes=(change,)), cells.store, "test")
    after = stored_patient(service.context(), [content])
    service.close()

    assert (before, after) == (None, "P7")


def test_a_field_beside_a_case_is_refused(live: Live, model: MilModel) -> None:
    field = next(iter(sorted((live.folder / "fields").rglob("*.png"))))
    with (
        Client(live.url) as client,
        pytest.raises(ServiceError, match="no case, items or vectors beside them"),
    ):
        client.predict_fields("cells", MilQuestion(model=model.id, case="C1"), [Path(field)])
