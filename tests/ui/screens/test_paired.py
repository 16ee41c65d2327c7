"""Two evaluations side by side, in words and as a table."""

from __future__ import annotations

import pytest

from search.schemas.evaluations import PairedResult, PairedScore, PairedSide, Span, Verdict
from ui.screens.paired import by_label, comparison


def side(encoder: str, version: str = "1") -> PairedSide:
    return PairedSide(
        id="0" * 32,
        collection="cells",
        version=version,
        encoder=encoder,
        fingerprint="f" * 16,
        method="20-NN",
        alone=0,
    )


def found(
    verdict: Verdict = "first", second: str = "colour", p: float | None = 0.0001
) -> PairedResult:
    score = PairedScore(
        name="weighted_f1",
        first=0.9,
        second=0.8,
        difference=0.1,
        span=Span(low=0.05, high=0.15),
        asked=100,
    )
    doubtful = Span(low=-0.1, high=0.3)
    return PairedResult(
        first=side("hemaseek-xs"),
        second=side(second, "2"),
        asked=100,
        relabelled=0,
        unit="patient",
        clusters=12,
        both_right=70,
        only_first=20,
        only_second=10,
        neither=0,
        scores=(score,),
        classes=(
            score.model_copy(update={"name": "MO <b>"}),
            score.model_copy(update={"name": "LY", "difference": -0.2, "span": doubtful}),
        ),
        mcnemar=p,
        verdict=verdict,
        words="hemaseek-xs agrees with the labels more often.",
        notes=("only 12 patients or sources",),
    )


def test_the_verdict_is_a_sentence_with_its_interval_and_what_lies_behind_it() -> None:
    made = comparison(found())

    for part in (
        "hemaseek-xs agrees with the labels more often.",
        "+0.100",
        "[+0.050, +0.150]",
        "100 queries in both",
        "only hemaseek-xs 20",
        "only colour 10",
        "p below 0.001",
        "paired bootstrap over 12 patients",
        "only 12 patients or sources",
    ):
        assert part in made


def test_a_map_that_fails_its_check_is_not_shown() -> None:
    made = comparison(found("not shown", p=None))

    assert "McNemar's test does not apply" in made.replace("&#x27;", "'")
    assert "hs-warn" in made


@pytest.mark.parametrize(("second", "words"), [("hemaseek-xs", "version 2"), ("colour", "colour")])
def test_two_evaluations_are_named_by_what_differs(second: str, words: str) -> None:
    assert f">{words}</th>" in comparison(found(second=second))


def test_labels_come_by_their_difference_and_are_escaped() -> None:
    made = by_label(found())

    assert made.index("LY") < made.index("MO &lt;b&gt;")
    assert "not shown to differ" in made
