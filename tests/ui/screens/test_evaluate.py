"""The page *Evaluate*: the matrix of confusions, and the limit of an upload."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from search.schemas.evaluations import ClassScores, ConfusionMatrix, MethodResult, Scores
from ui.screens.evaluate import classes, matrix, upload_limit

NASTY = "<script>alert(1)</script>"


def method(counts: tuple[tuple[int, ...], ...]) -> MethodResult:
    scores = Scores(weighted_f1=0.5, balanced_accuracy=0.5, accuracy=0.5, macro_f1=0.5)
    return MethodResult(
        method="1-NN",
        k=1,
        scores=scores,
        intervals={},
        per_fold=(),
        classes=(),
        worst=None,
        confusion=ConfusionMatrix(matrix=counts, unanswered=(1, 0)),
        tied=0,
        tied_right=0,
        dangerous=0,
        reliability=(),
        ece=0.0,
        by_margin=(),
    )


def test_every_confusion_is_a_button_with_its_share() -> None:
    made = matrix(["blast", NASTY], method(((3, 0), (1, 4))), "blast", "blast")

    assert made.count("<button") == 4
    assert 'data-id="1,0"' in made
    assert "3 of blast, predicted blast: 75%" in made
    assert "1 of blast, predicted unanswered: 25%" in made
    assert made.count('aria-pressed="true"') == 1
    assert "<script" not in made


@pytest.mark.parametrize(
    ("limit", "shown"), [(20, 20), (400, 400), (512, 476), (1024, 1024), (1500, 1430), (4096, 4096)]
)
def test_the_page_offers_no_larger_upload_than_the_service_takes(limit: float, shown: int) -> None:
    assert upload_limit(limit) == shown


def test_labels_that_nobody_can_answer_are_set_apart_and_the_split_is_named() -> None:
    def one(label: str, recall: float, answerable: int) -> ClassScores:
        return ClassScores(
            label=label,
            asked=7,
            known=7,
            precision=None,
            recall=recall,
            recall_span=None,
            f1=recall,
            auroc=None,
            auprc=None,
            map_at_k=None,
            answerable=answerable,
        )

    scored = method(((1,),)).model_copy(
        update={"classes": (one("blast", 0.0, 0), one("monocyte", 0.8, 7))}
    )
    result: Any = SimpleNamespace(split=SimpleNamespace(words="each site is held out"))

    made = classes(result, scored)

    assert "cannot be answered right under this split" in made
    assert "blast (7 queries)" in made
    assert '<th scope="row">blast</th>' not in made
    assert '<th scope="row">monocyte</th>' in made
    assert "1-NN. Each site is held out." in made
