"""Answers and reviews as files: CSV for a spreadsheet, JSON for a program."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from search.schemas.answers import Answer, VoteAnswer
from search.schemas.cells import JudgedField
from search.schemas.evaluations import EvaluationResult
from search.schemas.items import Item
from search.schemas.reviews import ReviewedRecord, standing

COLUMNS = tuple(name for name in Item.model_fields if name != "bbox")
BOX = ("x", "y", "w", "h")
REVIEW = ("reviewed_label", "reviewed_by", "reviewed_at", "disputed")


def as_csv(answer: Answer) -> bytes:
    """One line for each hit under a line of names.

    A text that a spreadsheet would run as a formula is quoted by an apostrophe.
    """
    heads = ["rank", "score", *COLUMNS, *BOX, "encoder", "collection", *REVIEW]
    rows = []
    for at, hit in enumerate(answer.hits, 1):
        one = hit.reviewed
        review = [""] * len(REVIEW) if one is None else [one.label, one.by, one.at, one.disputed]
        of = (answer.encoder, answer.collection)
        score = Decimal(f"{hit.score:.6f}")  # of six places always, and a number to `_plain`
        rows.append([at, score, *_known(hit.item), *of, *review])
    return _file(heads, rows)


def _file(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table that a spreadsheet reads, and takes nothing in it for a formula."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(heads)
    write.writerows([_plain(value) for value in row] for row in rows)
    return out.getvalue().encode("utf-8-sig")


def _known(item: Item) -> list[Any]:
    """The cells of a line that tell what is known of an item."""
    facts = item.model_dump(mode="json")
    box = facts.pop("bbox") or {}
    return [*(facts[name] for name in COLUMNS), *(box.get(side) for side in BOX)]


def as_json(answer: Answer, voted: VoteAnswer | None, address: dict[str, str]) -> bytes:
    """All that was answered, and the search that it answers."""
    whole: dict[str, Any] = {
        "search": address,
        "answer": answer.model_dump(mode="json"),
        "vote": None if voted is None else voted.model_dump(mode="json", exclude={"answer"}),
    }
    return json.dumps(whole, indent=1).encode()


def items_csv(items: Sequence[Item], reviewed: Mapping[str, ReviewedRecord]) -> bytes:
    """One line for each item, with all that is known of it and the reviewers' label by its id."""
    rows = ([*_known(item), *_standing(reviewed.get(item.id))] for item in items)
    return _file([*COLUMNS, *BOX, *REVIEW], rows)


def _standing(one: ReviewedRecord | None) -> list[Any]:
    """The last label of a reviewer that was not withdrawn; empty cells where there is none."""
    if one is None or one.label is None:
        return [""] * len(REVIEW)
    last = standing(one.history)[-1]
    return [one.label, last.reviewer or last.caller, last.at, one.disputed]


def scores_csv(result: EvaluationResult) -> bytes:
    """One line for each method and score of an evaluation, and for each class."""
    names = ["collection", "encoder", "split", "method", "class", "score", "value", "low", "high"]
    rows: list[list[Any]] = []
    head = [result.data.collection, result.encoder.id, result.split.words]
    for method in result.methods:
        for name, value in method.scores.model_dump().items():
            span = method.intervals.get(name)
            ends = ["", ""] if span is None else [span.low, span.high]
            rows.append([*head, method.method, "", name, value, *ends, result.data.asked])
        for one in method.classes:
            span = one.recall_span
            ends = ["", ""] if span is None else [span.low, span.high]
            for name in ("recall", "precision", "f1", "auroc"):
                between = ends if name == "recall" else ["", ""]
                row = [*head, method.method, one.label, name, getattr(one, name), *between]
                rows.append([*row, one.asked])
    return _file([*names, "queries"], rows)


def field_csv(judged: JudgedField) -> bytes:
    """One line for each judged cell of a field."""
    heads = ["cell", *BOX, "state", "label", "share", "probability", "nearest", "score", "reason"]
    rows = []
    for at, one in enumerate(judged.cells, 1):
        box = one.cell.bbox.model_dump()
        nearest = None if one.nearest is None else one.nearest.id
        row = [at, *(box[side] for side in BOX), one.state, one.label, f"{one.share:.4f}"]
        rows.append([*row, one.probability, nearest, one.score, one.reason])
    return _file(heads, rows)


def reviews_csv(reviewed: Sequence[ReviewedRecord]) -> str:
    """Every label of every reviewer, one line each."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["item", "source_label", "label", "reviewer", "caller", "at", "note"])
    for one in reviewed:
        for review in one.history:
            row = [one.item.id, review.source_label, review.label, review.reviewer]
            row += [review.caller, review.at, review.note]
            writer.writerow([_plain(value) for value in row])
    return out.getvalue()


def _plain(value: Any) -> Any:
    """A value that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value
