"""What a case model says, in words, and its attention as boxes on the slide."""

from __future__ import annotations

from search.schemas.evaluations import Span
from search.schemas.items import Box, Item, item_id
from search.schemas.mil import MilAnswer, MilCell, MilModel, MilPlan, MilScores
from ui.screens.cases.models import attended, verdict

MODEL = MilModel(
    id="0" * 32,
    name="marrow",
    collection="cells",
    encoder="random",
    fingerprint="0" * 16,
    model_fingerprint="1" * 16,
    data_fingerprint="2" * 16,
    content="3" * 16,
    plan=MilPlan(),
    classes=("AML", "healthy"),
    made="2026-01-01T00:00:00Z",
    cases=30,
    patients=28,
    cells=240,
    scores=MilScores(figures={"auroc": 0.91}, intervals={"auroc": Span(low=0.8, high=0.99)}),
    temperature=1.2,
    threshold=0.7,
    notes=("One case has no one value of it, and is left out.",),
    stale=True,
)


def cell(at: int, attention: float, source: str = "a" * 32, effect: float | None = None) -> MilCell:
    box = Box(x=10 * at, y=0, w=10, h=10)
    item = Item(id=item_id("made", source, box), dataset="made", source=source, bbox=box)
    return MilCell(cell=at, item=item, attention=attention, effect=effect)


def answer(label: str | None) -> MilAnswer:
    return MilAnswer(
        model=MODEL.id,
        name=MODEL.name,
        model_fingerprint=MODEL.model_fingerprint,
        probabilities={"AML": 0.8, "<healthy>": 0.2},
        label=label,
        sure=label is not None,
        reason="AML has 80%.",
        cells=(cell(0, 0.7), cell(1, 0.2), cell(2, 0.1, "b" * 32)),
        looked_at=3,
        complete=True,
        unseen="applied",
        networks=1,
    )


def test_the_verdict_says_what_it_rests_on_and_when_it_is_not_sure() -> None:
    sure, not_sure = verdict(answer("AML"), MODEL), verdict(answer(None), MODEL)

    assert "Not sure" in not_sure
    assert "Not sure" not in sure
    for words in ("held-out AUROC 0.91 [0.80, 0.99]", "did not see this patient", "has changed"):
        assert words in sure
    assert "80%" in sure
    assert "&lt;healthy&gt;" in sure
    assert "<healthy>" not in sure


def test_boxes_of_one_source_are_coloured_by_attention_where_effects_are_not_known() -> None:
    boxes = attended(answer("AML").cells, "a" * 32)

    assert [box.id for box in boxes] == [cell(1, 0).item.id, cell(0, 0).item.id]  # type: ignore[union-attr]
    assert boxes[0].colour != boxes[1].colour
    assert "70.0%" in boxes[1].text


def test_a_cell_that_is_looked_at_and_speaks_against_the_answer_is_not_marked_as_its_reason() -> (
    None
):
    against, reason = cell(0, 0.9, effect=-2.0), cell(1, 0.1, effect=0.4)

    boxes = attended([against, reason], "a" * 32)

    assert [box.id for box in boxes] == [one.item.id for one in (against, reason) if one.item]
    assert [box.strong for box in boxes] == [False, True]
    assert "effect -2.00" in boxes[0].text
