"""The case page: what is recorded of a case, its mosaic, and similar cases with their records."""

from __future__ import annotations

import pytest
from live import Live
from streamlit.testing.v1 import AppTest

from search.client.client import Client
from search.schemas.cases import (
    CaseAnswer,
    CaseChange,
    CaseMatch,
    CaseRecord,
    CaseRecordsQuestion,
    CaseRecordsWanted,
)
from search.schemas.evaluations import (
    CaseEvaluation,
    CaseLabelScores,
    CaseScores,
    PairedDifference,
    Span,
)
from ui.screens.cases.record import scores_html, told

pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.fixture(name="page")
def _page(live: Live, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setenv("HEMASEEK_SERVICE_URL", live.url)
    with Client(live.url) as client:
        cases = sorted(client.facets("cells", "case"))
        first = {"case": cases[0], "diagnosis": "AML", "diagnosis_code": "9861/3"}
        changes = [CaseChange.model_validate({**first, "more": {"blasts": 34}})]
        changes += [
            CaseChange(case=one, diagnosis="CLL", treatment="<b>ibrutinib</b>") for one in cases[1:]
        ]
        client.change_cases("cells", CaseRecordsWanted(changes=tuple(changes), author="AB"))
    app = AppTest.from_string("from ui.screens import case\ncase.show()", default_timeout=60)
    app.query_params["case"] = cases[0]
    return app


def html(app: AppTest) -> str:
    return "".join(str(one.proto.body) for one in app.get("html"))


def test_the_header_says_what_is_recorded_and_a_correction_keeps_what_was(
    page: AppTest, live: Live
) -> None:
    app = page
    app.run()

    assert not app.exception
    assert "Diagnosis: <b>AML</b>" in html(app)
    assert "Blasts: <b>34</b>" in html(app)
    diagnosis = next(one for one in app.text_input if one.label == "Diagnosis")
    diagnosis.set_value("AML with maturation")
    next(one for one in app.button if one.label == "Save the record").click().run()

    assert not app.exception
    assert "Diagnosis: <b>AML with maturation</b>" in html(app)
    with Client(live.url) as client:
        record = client.case_records("cells", CaseRecordsQuestion(limit=1)).records[0]
    assert record.edits[-1].before == {"diagnosis": "AML"}
    assert record.diagnosis_code == "9861/3"


@pytest.mark.parametrize(
    ("view", "words"),
    [("Similar cases", "Diagnosis: <b>CLL</b>"), ("Mosaic", "that stand for all")],
)
def test_views_of_a_case_show_records_and_cells(page: AppTest, view: str, words: str) -> None:
    app = page
    app.session_state["case-view-kept"] = view
    app.run()

    assert not app.exception
    assert words in html(app)
    assert "<b>ibrutinib" not in html(app)


def test_diagnoses_of_similar_cases_are_counted_by_patient() -> None:
    def match(case: str, patient: str | None, diagnosis: str) -> CaseMatch:
        record = CaseRecord(case=case, patient=patient, diagnosis=diagnosis)
        return CaseMatch.model_construct(value=case, records=(record,), patients=())

    cases = (match("1", "P", "AML"), match("2", "P", "AML"), match("3", None, "CLL"))
    answer = CaseAnswer.model_construct(cases=cases)

    assert "3 most similar cases, of 2 patients" in told(answer)
    assert "AML (1 patient), CLL (1 patient)" in told(answer)


def test_scores_of_cases_say_chance_intervals_and_the_worst_label() -> None:
    span = Span(low=0.5, high=0.9)
    names = ("top_1", "top_3", "top_5", "map", "vote")
    found = CaseEvaluation(
        column="diagnosis",
        cases=9,
        asked=9,
        patients=8,
        labels={"AML": 5, "CLL": 4},
        k=5,
        chance={"top_1": 0.25},
        scores=(
            CaseScores(
                distance="max_sim",
                **dict.fromkeys(names, 0.75),
                intervals=dict.fromkeys(names, span),
                labels=(
                    CaseLabelScores(
                        label="<AML>", cases=5, top_1=0.8, top_5=1, vote=0.6, average_precision=0.7
                    ),
                ),
                worst="<AML>",
                unanswered=0,
                over_mean={"map": PairedDifference(difference=0.1, low=0.02, high=0.2, p=0.01)},
            ),
        ),
        notes=(),
    )

    shown = scores_html(found)

    assert "0.750 [0.500, 0.900]" in shown
    assert "+0.100 (p 0.010)" in shown
    assert "0.250" in shown
    assert "&lt;AML&gt;" in shown
    assert "<AML>" not in shown
