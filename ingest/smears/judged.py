"""A whole field as one question: every white cell is found, searched with, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from encoder.contract import RGB
from ingest.smears.cells import Found
from ingest.smears.cells import FoundCell as Cell
from ingest.smears.crops import FieldOfView, placed
from search.errors import BadQuestion
from search.query.answer import answer_with_vote
from search.query.context import Context
from search.query.pictures import Opened
from search.query.resolve import own_cells
from search.schemas.answers import Exclusion, VoteAnswer
from search.schemas.cells import CountedLabel, FoundCell, JudgedCell, JudgedField
from search.schemas.items import Box
from search.schemas.questions import Question
from search.votes.differential import part_of
from search.votes.lineage import stage_of

MOST = 200
"""White cells that are judged; what lies beyond is counted as left out."""
FEW = 100
"""Leukocytes below which a differential count is marked as of few cells (CLSI H20)."""
STRICT: tuple[Exclusion, ...] = ("off", "impossible", "partial", "applied")


def judge_field(
    context: Context, question: Question, pixels: RGB, source: str, found: Found
) -> JudgedField:
    """The cells of a field with their votes; each vote is what a search with that cell gives.

    Args:
        context: The collection that is searched.
        question: How each cell is searched with; `crop` is filled in.
        pixels: The field.
        source: The digest of its bytes, so that its own stored cells do not vote.
        found: Its cells.

    Raises:
        BadQuestion: a question that starts from something else than the picture.
    """
    if question.item or question.vector or question.crop:
        raise BadQuestion("a field is judged from the picture alone; leave out item, vector, crop")
    white = [cell for cell in found.cells if cell.kind == "white"]
    rule = FieldOfView.of(context.collection.card, ("white",))
    um = None if found.scale is None else found.scale.um_per_px
    facts: dict[str, object] = {"cell": "white"}
    if question.about.um_per_px is None and found.scale is not None:
        facts |= {
            "um_per_px": um,
            "um_per_px_origin": found.scale.origin,
            "um_per_px_spread": found.scale.spread,
        }
    question = question.model_copy(update={"about": question.about.model_copy(update=facts)})
    crops = [placed(cell, found, rule)[0] for cell in white[:MOST]]
    smear = Opened(pixels, source, own=own_cells(context, question, pixels, crops))
    votes = [
        answer_with_vote(context, question.model_copy(update={"crop": crop}), smear)
        for crop in crops
    ]
    judged = [
        _judged(as_found(cell, crop), vote)
        for cell, crop, vote in zip(white, crops, votes, strict=False)
    ]
    exclusions = [vote.answer.patient_exclusion for vote in votes]
    alignments = Counter(one for vote in votes if (one := vote.answer.alignment) is not None)
    counts, leukocytes, erythroblasts = differential(judged)
    kinds = Counter(cell.kind for cell in found.cells)
    card = context.collection.card
    return JudgedField(
        cells=tuple(judged),
        counts=counts,
        leukocytes=leukocytes,
        unsure=sum(one.state != "sure" for one in judged),
        erythroblasts=erythroblasts,
        erythroblasts_per_100=100 * erythroblasts / leukocytes if leukocytes else None,
        red=kinds["red"],
        platelets=kinds["platelet"],
        left_out=max(0, len(white) - MOST),
        width=found.size[0],
        height=found.size[1],
        um_per_px=um,
        um_per_px_origin=None if found.scale is None else found.scale.origin,
        finder=found.finder,
        collection=context.collection.name,
        encoder=card.id,
        fingerprint=card.fingerprint,
        k=question.k,
        alignment=alignments.most_common(1)[0][0] if alignments else None,
        patient_exclusion=min(exclusions, key=STRICT.index, default="impossible"),
        warnings=(*_warnings(len(white), leukocytes), *_of_all(votes)),
    )


def as_found(cell: Cell, crop: Box) -> FoundCell:
    """A cell of the finder as it goes over the wire, with the square around it."""
    x, y, w, h = cell.bbox
    return FoundCell(
        kind=cell.kind,
        bbox=Box(x=x, y=y, w=w, h=h),
        crop=crop,
        score=cell.score,
        touches_border=cell.touches_border,
    )


def differential(
    judged: Sequence[JudgedCell],
) -> tuple[tuple[CountedLabel, ...], int, int]:
    """The count of the cells whose vote is sure; how many are leukocytes, and erythroblasts.

    Erythroblasts, red cells and platelets are no leukocytes; a label that is not on the graph of
    maturation is one, since the finder took the cell for white.
    """
    sure = Counter(one.label for one in judged if one.state == "sure" and one.label is not None)
    others = {label: n for label, n in sure.items() if not is_leukocyte(label)}
    leukocytes = sure.total() - sum(others.values())
    erythroblasts = sum(n for label, n in others.items() if is_erythroblast(label))
    order = sorted(sure, key=lambda label: (label in others, -sure[label], label))
    counts = tuple(
        CountedLabel(
            label=label,
            cells=sure[label],
            percent=None if label in others else 100 * sure[label] / leukocytes,
        )
        for label in order
    )
    return counts, leukocytes, erythroblasts


def is_leukocyte(label: str) -> bool:
    """Whether a label is counted among the white cells."""
    part = part_of(label)
    return part == "leukocytes" or (part == "other" and stage_of(label) is None)


def is_erythroblast(label: str) -> bool:
    """Whether a label means a nucleated red cell."""
    return part_of(label) == "nucleated red cells"


def _judged(cell: FoundCell, vote: VoteAnswer) -> JudgedCell:
    first = vote.answer.hits[0] if vote.answer.hits else None
    return JudgedCell(
        cell=cell,
        state=vote.state,
        reason=vote.reason,
        label=vote.vote.label,
        share=vote.vote.shares[vote.vote.label] if vote.vote.label is not None else 0.0,
        probability=vote.probability,
        nearest=None if first is None else first.item,
        score=None if first is None else first.score,
        warnings=tuple(one for one in vote.answer.warnings if one.startswith("The image")),
    )


def _of_all(votes: Sequence[VoteAnswer]) -> list[str]:
    """What every search warned of: the names that were given, and what cannot be excluded."""
    lists = [vote.answer.warnings for vote in votes]
    first = lists[0] if lists else ()
    return [
        one
        for one in first
        if not one.startswith("The image") and all(one in others for others in lists)
    ]


def _warnings(white: int, leukocytes: int) -> list[str]:
    words = []
    if not white:
        words.append("No white cell was found in this field.")
    elif leukocytes < FEW:
        words.append(
            f"The count is of {leukocytes} leukocyte{'' if leukocytes == 1 else 's'}; a "
            f"differential count needs at least {FEW}."
        )
    if white > MOST:
        words.append(f"Only the first {MOST} of {white} white cells were judged.")
    return words
