"""A case model applied to a case: calibrated probabilities, attention, and when it is not sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from search.cases.bags import query_bag
from search.cases.represented import alone
from search.errors import BadQuestion, StoreError, WrongEncoder
from search.index.contract import Vectors
from search.mil.bags import mean_rows, stored_bag
from search.mil.models import Trained
from search.mil.pooling import Floats, Network, softmax
from search.query.context import Context
from search.schemas.answers import Exclusion
from search.schemas.cases import MOST_CELLS, CaseQuestion
from search.schemas.items import Item
from search.schemas.mil import MilAnswer, MilCell, MilModel, MilQuestion


class OtherEncoder(WrongEncoder):
    """A model whose collection has vectors of another encoder by now."""

    def __init__(self, card: MilModel, now: str) -> None:
        StoreError.__init__(
            self,
            f"case model {card.name!r} reads vectors of encoder {card.encoder} "
            f"({card.fingerprint}), and collection {card.collection!r} holds those of {now} by "
            "now; train it again, or roll the collection back",
        )


@dataclass
class _Cells:
    """The cells of a question, and whose they are."""

    vectors: Vectors
    items: list[Item] = field(default_factory=list)
    """Empty where the cells are not stored."""
    patients: set[str] = field(default_factory=set)
    known: bool = False
    """Whether the patient of every cell is known."""
    complete: bool = True
    warnings: list[str] = field(default_factory=list)


def predict(
    context: Context, trained: Trained, question: MilQuestion, images: Sequence[bytes] = ()
) -> MilAnswer:
    """What a model says of a case, each cell with its share of the attention.

    A patient that the model was trained on is answered by the networks that did not see it; any
    other by all of them, whose probabilities are averaged.

    Raises:
        BadQuestion: not exactly one of a stored case, items, vectors and images; or `towards` is
            none of the model's classes.
        OtherEncoder: the collection's vectors are of another encoder by now.
        NoSuchCase, NoSuchItem, ImageError, BadVector: as they say.
    """
    card = trained.card
    if context.collection.card.fingerprint != card.fingerprint:
        raise OtherEncoder(card, context.collection.card.title)
    queried = _cells(context, card, question, images)
    networks, unseen = _unseen(trained, queried)
    looked = [one(queried.vectors) for one in networks]
    outputs = np.stack([found for found, _ in looked])
    attention = np.mean([weights for _, weights in looked], axis=0)
    towards = _towards(card, question, outputs)
    effects = _effects(card, networks, queried.vectors, outputs, towards)
    cells = _told(question, queried, attention, effects)
    answer = MilAnswer(
        model=card.id,
        name=card.name,
        model_fingerprint=card.model_fingerprint,
        probabilities={},
        label=None,
        sure=False,
        reason="",
        cells=cells,
        towards=None if towards is None else card.classes[towards],
        looked_at=len(queried.vectors),
        complete=queried.complete,
        unseen=unseen,
        networks=len(networks),
        warnings=tuple(queried.warnings),
    )
    like_none = _like_none(trained, queried.vectors)
    if card.plan.task == "survival":
        return answer.model_copy(update=_risk(trained, outputs, like_none))
    return answer.model_copy(update=_classes(card, outputs, like_none))


def _towards(card: MilModel, question: MilQuestion, outputs: Floats) -> int | None:
    """The class that effects are told for."""
    if question.towards is not None:
        if question.towards not in card.classes:
            known = ", ".join(card.classes) or "none, for it gives a risk"
            raise BadQuestion(
                f"case model {card.name!r} has no class {question.towards!r}; it has {known}"
            )
        return card.classes.index(question.towards)
    if not card.classes:
        return None
    return int(calibrated(outputs, card.temperature).mean(axis=0).argmax())


def _effects(
    card: MilModel,
    networks: Sequence[Network],
    vectors: Vectors,
    outputs: Floats,
    towards: int | None,
) -> Floats | None:
    """What the answer would lose without each cell, mean of the networks; see `MilCell.effect`."""
    found = []
    for one, whole in zip(networks, outputs, strict=True):
        left_out = one.left_out(vectors)
        if left_out is None:
            return None
        if towards is None:
            found.append(whole[0] - left_out[:, 0])
        else:
            both = _log_odds(np.concatenate([whole[None], left_out]) / card.temperature, towards)
            found.append(both[0] - both[1:])
    return np.asarray(np.mean(found, axis=0), np.float32)


def _log_odds(logits: NDArray[np.floating], of: int) -> Floats:
    """Of one class against all others together, from logits (n x classes)."""
    others = np.delete(np.asarray(logits, np.float64), of, axis=1)
    return np.asarray(logits[:, of] - np.logaddexp.reduce(others, axis=1), np.float32)


def _told(
    question: MilQuestion, queried: _Cells, attention: Floats, effects: Floats | None
) -> tuple[MilCell, ...]:
    ranked = effects if question.order == "effect" and effects is not None else attention
    order = np.argsort(-ranked, kind="stable")
    return tuple(
        MilCell(
            cell=int(at),
            item=queried.items[at] if queried.items else None,
            attention=float(np.clip(attention[at], 0, 1)),
            effect=None if effects is None else float(effects[at]),
        )
        for at in order[: question.top]
    )


def _cells(
    context: Context, card: MilModel, question: MilQuestion, images: Sequence[bytes]
) -> _Cells:
    plan, collection = card.plan, context.collection
    by = question.by or plan.by
    if question.case is not None:
        if images or question.items or question.vectors:
            raise BadQuestion("send one of a case, items, vectors and images, not several")
        bag = stored_bag(collection, by, question.case, plan.where, plan.cells, plan.found)
        known = all(item.patient is not None for item in bag.items)
        patients = {*bag.patients} or {alone(bag.name)}
        return _Cells(bag.vectors, bag.items, patients, known, bag.complete)
    queried = query_bag(
        context,
        CaseQuestion(
            items=question.items,
            vectors=question.vectors,
            fingerprint=question.fingerprint,
            about=question.about,
            cells=MOST_CELLS,
        ),
        images,
    )
    found = _Cells(
        queried.vectors,
        queried.items,
        set(queried.own.get("patient", ())),
        queried.patient_known,
        warnings=list(queried.warnings),
    )
    if not plan.where.empty and not queried.items:
        found.warnings.append(
            "The model was trained on cells of "
            f"{plan.where.model_dump_json(exclude_defaults=True)}; send cells of that kind."
        )
    return found


def _unseen(trained: Trained, queried: _Cells) -> tuple[tuple[Network, ...], Exclusion]:
    """The networks that did not see the patients of a question."""
    folds = {fold for one in queried.patients if (fold := trained.seen.fold.get(one)) is not None}
    if len(folds) > 1:
        queried.warnings.append(
            "The cells are of several patients that the model was trained on, and every network "
            "saw some of them: the answer is not held out."
        )
        return trained.networks, "off"
    if folds:
        return (trained.networks[folds.pop()],), "applied"
    return trained.networks, "applied" if queried.known else "impossible"


def _like_none(trained: Trained, vectors: Vectors) -> bool:
    """Whether a case is farther from every training case than these are from each other."""
    nearest = float((trained.means @ mean_rows([vectors])[0]).max())
    return nearest < trained.seen.far


FAR = "its cells are unlike those of every case that the model was trained on"


def _classes(card: MilModel, outputs: Floats, like_none: bool) -> dict[str, object]:
    shares = calibrated(outputs, card.temperature).mean(axis=0)
    order = np.argsort(-shares, kind="stable")
    first = card.classes[order[0]]
    top = float(shares[order[0]])
    sure = top >= card.threshold and not like_none
    held = f"held-out cases were right {card.plan.accuracy:.0%} of the time from"
    if like_none:
        reason = f"Not sure: {FAR}."
    elif card.threshold > 1:
        reason = (
            f"Not sure: at no probability were {card.plan.accuracy:.0%} of the held-out answers "
            "right; the model is too weak, or was trained on too few cases."
        )
    elif sure:
        reason = f"{first} has {top:.0%}; {held} {card.threshold:.0%} on."
    else:
        reason = f"Not sure: {first} has only {top:.0%}; {held} {card.threshold:.0%} on."
    return {
        "probabilities": {card.classes[at]: float(shares[at]) for at in order},
        "label": first if sure else None,
        "sure": sure,
        "reason": reason,
    }


def _risk(trained: Trained, outputs: Floats, like_none: bool) -> dict[str, object]:
    risk = float(outputs.mean())
    lower = np.searchsorted(np.array(trained.seen.risks), risk) / max(1, len(trained.seen.risks))
    words = f"Its risk is above that of {lower:.0%} of the training cases"
    return {
        "risk": risk,
        "risk_percentile": float(lower),
        "sure": not like_none,
        "reason": f"{words}; but {FAR}." if like_none else f"{words}.",
    }


def calibrated(logits: NDArray[np.floating], temperature: float) -> Floats:
    """Probabilities from logits (... x classes), divided by a temperature (Guo et al. 2017)."""
    return softmax(np.asarray(logits, np.float64) / temperature)
