"""Evaluations: equal to scikit-learn on the same folds, patient-safe, and the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from random_library import CARD, random_entries, random_service
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    roc_auc_score,
)
from sklearn.neighbors import KNeighborsClassifier

from search.client.evaluations import wait_for
from search.evaluation.folds import CannotEvaluate, make_split
from search.evaluation.labelled import Cells, read_labelled, table
from search.evaluation.run import Outcome, Whole, code_facts, evaluate
from search.index.contract import Store
from search.library.shards import Entry
from search.query.answer import answer as search
from search.schemas.evaluations import EvaluationPlan, EvaluationResult, SetFacts
from search.schemas.filters import Filter
from search.schemas.items import Item, item_id
from search.service import Service
from search.votes.knn import vote

PLAN = EvaluationPlan(ks=(1, 3, 8), resamples=50, ann_sample=40)


@pytest.fixture(name="service", scope="module")
def _service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    entries = random_entries(np.random.default_rng(7), 240, 20)
    service = random_service(tmp_path_factory.mktemp("evaluation"), entries)
    yield service
    service.close()


@pytest.fixture(name="plain", scope="module")
def _plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One without any picture twice, which scikit-learn would count as a neighbour."""
    rng = np.random.default_rng(8)
    entries = [
        Entry(e.item, np.asarray(e.vector + rng.normal(0, 0.05, CARD.dim), np.float32), e.thumbnail)
        for e in random_entries(rng, 240, 20)
    ]
    service = random_service(tmp_path_factory.mktemp("plain"), entries)
    yield service
    service.close()


def run(service: Service, plan: EvaluationPlan) -> Outcome:
    collection = service.collection("cells")
    return evaluate(collection.store, collection.card, Whole("cells", "1", 240, "x"), plan)


def cells_of(service: Service) -> Cells:
    return read_labelled(service.collection("cells").store, Filter())


def made(n: int, rng: np.random.Generator, **facts: list[object]) -> Cells:
    """Cells of two labels, each from a source of its own unless made otherwise."""
    rows = []
    for at in range(n):
        made = {name: values[at] for name, values in facts.items()}
        source = f"{at:032x}"
        item = Item.model_validate(
            {"id": item_id("m", source), "dataset": "m", "source": source, "label": "ab"[at % 2]}
            | made
        )
        rows.append((item, rng.normal(size=4)))
    return table(rows, 4)


def test_neighbours_equal_scikit_learn_on_the_same_folds(plain: Service) -> None:
    plan = PLAN.model_copy(update={"split": "stratified", "probe": False, "ann": False})
    cells = cells_of(plain)
    folds = make_split(cells, plan).folds

    outcome = run(plain, plan)

    for k, made, result in zip(plan.ks, outcome.predictions, outcome.result.methods, strict=True):
        shares = np.zeros((len(cells), len(outcome.result.labels)))
        for fold in folds:
            model = KNeighborsClassifier(k, metric="cosine", weights=lambda d: np.maximum(1 - d, 0))
            model.fit(cells.vectors[fold.train].astype(np.float64), cells.labels[fold.train])
            found = model.predict_proba(cells.vectors[fold.test].astype(np.float64))
            shares[fold.test] = found
        names = np.array(outcome.result.labels)
        assert made.shares == pytest.approx(shares[made.rows], abs=1e-5)
        predicted, truth = names[shares.argmax(axis=1)], cells.labels
        one = result.scores
        assert one.accuracy == pytest.approx(accuracy_score(truth, predicted))
        assert one.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, predicted))
        assert one.weighted_f1 == pytest.approx(f1_score(truth, predicted, average="weighted"))
        assert one.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
        flags = truth[:, None] == names
        each = [roc_auc_score(flags[:, at], shares[:, at]) for at in range(len(names))]
        assert one.auroc == pytest.approx(np.mean(each), abs=1e-4)
        each = [average_precision_score(flags[:, at], shares[:, at]) for at in range(len(names))]
        assert one.auprc == pytest.approx(np.mean(each), abs=1e-3)
        assert np.array(result.confusion.matrix).tolist() == (
            confusion_matrix(truth, predicted, labels=names).tolist()
        )


def test_the_probe_equals_scikit_learn_on_the_same_folds(plain: Service) -> None:
    plan = PLAN.model_copy(update={"split": "stratified", "ann": False, "ks": (1,)})
    cells = cells_of(plain)
    truth = []
    predicted = []
    for fold in make_split(cells, plan).probe:
        strength = 4 * len(fold.train) / 100
        model = LogisticRegression(C=strength, max_iter=1000)
        model.fit(cells.vectors[fold.train], cells.labels[fold.train])
        predicted += model.predict(cells.vectors[fold.test]).tolist()
        truth += cells.labels[fold.test].tolist()

    probe = run(plain, plan).result.methods[-1]

    assert probe.method == "linear probe"
    assert probe.scores.weighted_f1 == pytest.approx(f1_score(truth, predicted, average="weighted"))
    assert probe.scores.accuracy == pytest.approx(accuracy_score(truth, predicted))


def test_each_patient_left_out_is_the_vote_that_is_served(service: Service) -> None:
    """With the own patient, case and source left out: as `/v1/vote` does it."""
    from search.schemas.questions import Question

    outcome = run(service, PLAN)
    made = outcome.predictions[-2]
    assert made.method == "8-NN"
    names = outcome.result.labels
    labels = tuple(sorted(set(names)))
    checked = 0
    for at, row in enumerate(made.rows[:80]):
        question = Question(item=outcome.cells.ids[row], k=8, where=Filter(label=labels))
        hits = search(service.context(), question).hits
        voted = vote(hits)
        group = outcome.cells.group
        known = {id: at for at, id in enumerate(outcome.cells.ids)}
        if any(group[known[hit.item.id]] == group[row] for hit in hits):
            continue  # related through a third item only; the evaluation is stricter
        alike = [known[h.item.id] for h in hits]
        if (
            len(hits) < 8
            or (outcome.cells.vectors[alike] @ outcome.cells.vectors[row]).max() > 0.99
        ):
            continue
        want = [voted.shares.get(name, 0.0) for name in names]
        assert made.shares[at] == pytest.approx(want, abs=1e-4)
        checked += 1
    assert checked > 30


def test_equal_plans_give_equal_figures(service: Service) -> None:
    first, again = (run(service, PLAN).result for _ in range(2))

    assert first.model_copy(update={"seconds": {}}) == again.model_copy(update={"seconds": {}})
    assert first.encoder.fingerprint == CARD.fingerprint
    assert first.code.version
    assert (first.split.seed, first.split.name) == (0, "leave-one-patient-out")


def test_a_tied_vote_is_never_right(rng: np.random.Generator) -> None:
    plan = EvaluationPlan(ks=(2,), weighting="uniform", probe=False, ann=False, resamples=10)
    entries = []
    for at in range(40):
        source = f"{at:032x}"
        item = Item(id=item_id("t", source), dataset="t", source=source, label="ab"[at % 2])
        entries.append((item, rng.normal(size=4)))
    cells = table(entries, 4)

    from search.evaluation.predicting import Steps, by_neighbours
    from search.evaluation.scores import Task, scored

    names, truth = np.unique(cells.labels, return_inverse=True)
    task = Task(cells, truth, names, np.arange(40), plan)
    steps = Steps(lambda done, total: None, total=99)
    (made,) = by_neighbours(task, make_split(cells, plan), steps)
    result = scored(made, task)

    assert result.tied > 5
    assert result.tied_right > 0
    assert sum(result.confusion.unanswered) == result.tied
    clear = ~made.tied
    assert result.scores.accuracy == (made.first[clear] == truth[clear]).sum() / 40


def test_no_group_is_in_train_and_test_of_any_split(rng: np.random.Generator) -> None:
    n = 90
    cells = made(
        n,
        rng,
        patient=[f"P{at % 15}" if at % 4 else None for at in range(n)],
        case=[f"C{at % 30}" for at in range(n)],
        site=[f"S{(at * at) % 3}" if at % 7 else None for at in range(n)],
        acquired=[date(2024, 1, 1 + at % 28) if at % 5 else None for at in range(n)],
    )
    for split in ("stratified", "leave-one-site-out", "one-site-in", "temporal"):
        found = make_split(cells, EvaluationPlan.model_validate({"split": split, "folds": 3}))
        for fold in (*found.folds, *found.probe):
            assert not set(cells.group[fold.train]) & set(cells.group[fold.test])


def test_later_items_are_test_and_earlier_ones_train(rng: np.random.Generator) -> None:
    days = [date(2024, 1, 1 + at // 3) if at % 10 else None for at in range(60)]
    cells = made(60, rng, acquired=days)

    found = make_split(cells, EvaluationPlan(split="temporal"))
    given = make_split(cells, EvaluationPlan(split="temporal", cutoff=date(2024, 1, 5)))

    assert found.facts.cutoff == date(2024, 1, 16)
    (fold,) = found.folds
    assert cells.days[fold.train].max() < cells.days[fold.test].min()
    assert "6 items without a date" in found.notes[0]
    assert len(given.folds[0].train) < len(fold.train)
    with pytest.raises(CannotEvaluate, match="choose another cutoff"):
        make_split(cells, EvaluationPlan(split="temporal", cutoff=date(2030, 1, 1)))


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("leave-one-patient-out", "no item has a patient id"),
        ("leave-one-site-out", "two sites, got 0"),
        ("temporal", "no item has a date"),
    ],
)
def test_what_the_data_does_not_allow_is_refused_in_words(
    rng: np.random.Generator, split: str, words: str
) -> None:
    with pytest.raises(CannotEvaluate, match=words):
        make_split(made(30, rng), EvaluationPlan.model_validate({"split": split}))


def test_too_few_labels_are_refused_in_words(tmp_path: Path, rng: np.random.Generator) -> None:
    entries = [
        Entry(e.item.model_copy(update={"label": "one"}), e.vector, e.thumbnail)
        for e in random_entries(rng, 30)
    ]
    service = random_service(tmp_path, entries)
    with pytest.raises(CannotEvaluate, match="two labels, got 30 of 1"):
        run(service, PLAN)
    service.close()


def test_the_index_is_put_beside_exact_search_and_sites_are_weighed(service: Service) -> None:
    result = run(service, PLAN).result

    assert result.index is not None
    assert [one.k for one in result.index.by_k] == [1, 3, 8]
    for one in result.index.by_k:
        assert one.recall == 1.0, "so few items have no graph"
        assert one.agree == 1.0
        assert one.exact == one.index
    assert result.bias is not None
    assert result.bias.sites == 3
    assert result.bias.robustness is not None
    assert result.bias.own_site - result.bias.expected == pytest.approx(result.bias.excess)


def test_the_unit_of_the_intervals_is_named(service: Service) -> None:
    mixed = run(service, PLAN).result
    known = run(
        service,
        PLAN.model_copy(update={"where": Filter(patient=tuple(f"P{at}" for at in range(20)))}),
    ).result

    assert (mixed.unit, known.unit) == ("mixed", "patient")
    assert known.clusters == known.data.patients
    assert any("no patient id" in note for note in mixed.notes)
    for method in known.methods:
        for name, span in method.intervals.items():
            assert span.low <= getattr(method.scores, name) + 0.1
            assert span.low <= span.high


def test_a_class_that_cannot_be_predicted_is_listed_and_both_means_are_given(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """A class of one cell, and one of three cells of a single patient."""
    entries = [
        Entry(e.item.model_copy(update=changed), e.vector, e.thumbnail)
        for at, e in enumerate(random_entries(rng, 80, 12))
        for changed in [
            {"label": "mast cell"} if at == 0
            else {"label": "hairy cell", "patient": "only", "case": None} if at < 4
            else {}
        ]
    ]  # fmt: skip
    service = random_service(tmp_path, entries)
    result = run(service, PLAN).result
    service.close()

    for method in result.methods:
        assert method.answerable is not None
        asked = result.data.asked
        share = (asked - 4) / asked
        assert method.scores.accuracy == pytest.approx(share * method.answerable.accuracy)
        assert method.answerable.balanced_accuracy > method.scores.balanced_accuracy
        classes = {one.label: one for one in method.classes}
        assert [classes[n].answerable for n in ("mast cell", "hairy cell")] == [0, 0]
        assert [classes[n].recall for n in ("mast cell", "hairy cell")] == [None, None]
        assert method.worst not in ("mast cell", "hairy cell")
        (note,) = [n for n in result.notes if n.startswith(f"{method.method}: 4 of {asked}")]
        assert "hairy cell (3), mast cell (1)" in note
        assert f"{100 * method.scores.balanced_accuracy:.1f} % with them counted as wrong" in note
        assert f"{100 * method.answerable.balanced_accuracy:.1f} % without them" in note


def test_where_every_class_can_be_answered_one_mean_is_enough(service: Service) -> None:
    result = run(service, PLAN).result

    assert all(method.answerable is None for method in result.methods)
    assert not any("cannot be answered" in note for note in result.notes)


def test_a_sample_can_be_queries_while_all_are_references(service: Service) -> None:
    result = run(service, PLAN.model_copy(update={"ask": 50})).result

    assert result.data.asked <= 52
    assert result.data.used == result.data.labelled
    assert sum(one.asked for one in result.methods[0].classes) == result.data.asked


def test_one_picture_under_two_patients_is_kept_together(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    entries = random_entries(rng, 60, 12)
    again = [
        Entry(
            e.item.model_copy(
                update={
                    "id": item_id("again", f"{at:032x}"),
                    "dataset": "again",
                    "source": f"{at:032x}",
                    "patient": f"Q{at}",
                    "case": None,
                }
            ),
            e.vector + rng.normal(0, 0.1, CARD.dim).astype(np.float32),
            e.thumbnail,
        )
        for at, e in enumerate(entries[:5])
    ]
    service = random_service(tmp_path, entries + again)
    record = service.evaluations.start(service.context(), PLAN)
    result = wait_for(service.evaluations.get, record.id, every_s=0.01).result
    service.close()

    assert result is not None
    labelled = sum(e.item.label is not None for e in entries[:5])
    assert f"{labelled} pairs of near-duplicates joined" in result.notes
    assert result.clusters <= 12 + sum(e.item.patient is None for e in entries)


def with_sites(sites: int) -> Cells:
    """Cells of two labels at several sites, each of which moves every vector its own way."""
    rng = np.random.default_rng(3)
    entries = []
    for at in range(120 * sites):
        label, site = at % 2, (at // 2) % sites
        row = rng.normal(0, [0.3] + [1] * (CARD.dim - 1))
        row[0] += 0.6 - 1.2 * label
        row[1 + site % (CARD.dim - 1)] += 3
        item = Item(
            id=item_id("drawn", str(at)),
            kind="cell",
            dataset="drawn",
            source=str(at),
            label="blast" if label else "monocyte",
            site=f"site {site}",
        )
        entries.append((item, (row / np.linalg.norm(row)).astype(np.float32)))
    return table(entries, CARD.dim)


def test_a_transform_is_scored_under_one_that_was_not_fitted_on_the_test_site() -> None:
    cells = with_sites(3)
    plan = EvaluationPlan(split="leave-one-site-out", ks=(5,), resamples=20, probe=False, ann=False)

    before, after = (
        _of_cells(cells, plan.model_copy(update={"adapt": kind})) for kind in (None, "metric")
    )

    assert after.split.folds == before.split.folds == 3
    assert after.methods[0].scores.weighted_f1 > before.methods[0].scores.weighted_f1 + 0.1
    assert any("fitted anew on the training part of each fold" in note for note in after.notes)


def test_one_site_in_scores_each_pair_of_sites() -> None:
    plan = EvaluationPlan(split="one-site-in", ks=(5,), resamples=20, probe=False, ann=False)

    result = _of_cells(with_sites(3), plan)

    method = result.methods[0]
    assert [one.fold for one in method.per_fold] == [
        f"site {a} to site {b}" for a in range(3) for b in range(3) if a != b
    ]
    mean, sd = method.over_folds()["accuracy"]
    each = [one.accuracy for one in method.per_fold]
    assert mean == pytest.approx(np.mean(each))
    assert sd == pytest.approx(np.std(each))
    assert "each item was a query 2 times, once for each other site" in result.notes


def test_labels_without_meaning_score_by_chance_under_a_transform_that_reads_them() -> None:
    cells = with_sites(3)
    shuffled = replace(cells, labels=np.random.default_rng(0).permutation(cells.labels))
    plan = EvaluationPlan(split="stratified", ks=(5,), resamples=20, ann=False, adapt="metric")

    result = _of_cells(shuffled, plan)

    assert all(0.38 < method.scores.accuracy < 0.62 for method in result.methods)


def test_a_transform_that_cannot_be_fitted_is_refused_in_words() -> None:
    plan = EvaluationPlan(split="stratified", ks=(5,), resamples=20, ann=False, adapt="fusion")

    with pytest.raises(CannotEvaluate, match="unknown kind of adaptation 'fusion'"):
        _of_cells(with_sites(2), plan)


def _of_cells(cells: Cells, plan: EvaluationPlan) -> EvaluationResult:
    """Evaluate cells as they are, as those of an uploaded set that is split itself."""
    facts = SetFacts(kind="shard", items=len(cells), digest="0" * 16)
    whole = Whole("cells", "1", 0, "x")
    plan = plan.model_copy(update={"teach": "set"})
    store = cast(Store, None)
    return evaluate(store, CARD, whole, plan, (facts, lambda look: cells)).result


def test_patients_whom_only_the_records_of_cases_name_are_groups(tmp_path: Path) -> None:
    known = [e for e in random_entries(np.random.default_rng(3), 60, 5) if e.item.case is not None]
    named = {str(e.item.case): str(e.item.patient) for e in known}
    bare = [replace(e, item=e.item.model_copy(update={"patient": None})) for e in known]
    plain, service = random_service(tmp_path / "plain", known), random_service(tmp_path, bare)
    plan = EvaluationPlan(ks=(5,), resamples=20, probe=False)
    try:
        store = service.collection("cells").store
        without, cells = (read_labelled(store, Filter(), patients=one) for one in ({}, named))
        results = [
            evaluate(one, CARD, Whole("cells", "1", 0, "x", patients=patients), plan).result
            for one, patients in ((plain.collection("cells").store, {}), (store, named))
        ]
    finally:
        service.close()
        plain.close()

    assert results[0].index == results[1].index is not None

    assert set(cells.patients) == set(named.values())
    assert len(np.unique(cells.group)) == len(set(cells.patients)) < len(np.unique(without.group))


def test_an_evaluation_needs_no_torch_to_say_what_it_was_made_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def light(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("search.evaluation.run.version", light)

    assert set(code_facts().libraries) == {"numpy", "scikit-learn"}
