"""Maturation: labels of many sets meet on one graph, and dangerous confusions are counted."""

from __future__ import annotations

import pytest

from search.schemas.answers import Vote
from search.votes.lineage import STAGES, is_dangerous, plain, spread, stage_of


def vote_of(**shares: float) -> Vote:
    values = list(shares.values())
    return Vote(label=next(iter(shares)), shares=shares, voters=10, unlabelled=0, margin=values[0])


@pytest.mark.parametrize(
    ("label", "stage"),
    [
        ("BNE", "band neutrophil"),
        ("SNE", "segmented neutrophil"),
        ("Segmented_Neutrophils", "segmented neutrophil"),
        ("MMY", "metamyelocyte"),
        ("my", "myelocyte"),
        ("PMY", "promyelocyte"),
        ("EO", "eosinophil"),
        ("BA", "basophil"),
        ("LY", "lymphocyte"),
        ("MO", "monocyte"),
        ("ERB", "erythroblast"),
        ("PLATELET", "platelet"),
        ("platelets", "platelet"),
    ],
)
def test_the_words_of_published_sets_find_their_stage(label: str, stage: str) -> None:
    found = stage_of(label)

    assert found is not None
    assert found.name == stage


def test_a_label_that_is_not_on_the_graph_is_not_guessed_at() -> None:
    assert stage_of("artefact") is None
    assert not is_dangerous("artefact", "BL")


def test_no_label_means_two_stages_and_every_stage_has_a_known_one_before_it() -> None:
    words = [plain(label) for stage in STAGES for label in (stage.name, *stage.words)]
    repeated = {label for label in words if words.count(label) > 1}
    own = {plain(stage.name) for stage in STAGES}

    assert repeated <= own, "only a stage's own name may be written in capitals again"
    for stage in STAGES:
        assert stage.after is None or stage.after in {other.name for other in STAGES}
        assert {stage_of(label) for label in (stage.name, *stage.words)} == {stage}


@pytest.mark.parametrize(
    ("truth", "predicted", "steps"),
    [("SNE", "SNE", 0), ("SNE", "BNE", 1), ("MY", "PMY", 1), ("BL", "SNE", 6), ("EO", "MMY", 2)],
)
def test_errors_are_counted_in_steps_of_maturation(truth: str, predicted: str, steps: int) -> None:
    for one, other in ((truth, predicted), (predicted, truth)):
        found = spread(vote_of(**{one: 0.6} | ({other: 0.4} if other != one else {})))
        assert found is not None
        assert found.stages[-1].steps == steps


def test_a_blast_taken_for_a_mature_cell_is_dangerous_and_so_is_the_reverse() -> None:
    assert is_dangerous("BL", "LY")
    assert is_dangerous("SNE", "myeloblast")
    assert not is_dangerous("BL", "PMY")
    assert not is_dangerous("SNE", "LY")


def test_a_vote_is_laid_out_along_maturation() -> None:
    found = spread(vote_of(SNE=0.6, BNE=0.2, BL=0.1, smudge=0.1))

    assert found is not None
    assert [(one.stage, one.steps) for one in found.stages] == [
        ("segmented neutrophil", 0),
        ("band neutrophil", 1),
        ("blast", 6),
    ]
    assert found.mean_steps == pytest.approx((0.2 + 0.6) / 0.9)
    assert found.dangerous == pytest.approx(0.1)
    assert found.unmapped == pytest.approx(0.1)
    assert list(found.lineages) == ["neutrophil", "stem"]


def test_a_vote_for_something_else_has_no_lineage() -> None:
    assert spread(vote_of(artefact=1.0)) is None
    empty = Vote(label=None, shares={}, voters=0, unlabelled=3, margin=0)
    assert spread(empty) is None
