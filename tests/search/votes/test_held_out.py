"""Neighbours under axes that labels chose: what an item's own label did must not come back."""

from __future__ import annotations

import numpy as np

from encoder.card import EncoderCard
from search.neighbours.groups import neighbours_outside
from search.schemas.items import Item, item_id
from search.transforms.adaptation import Adaptation
from search.transforms.contract import unit
from search.votes.familiarity import fitted
from search.votes.held_out import HeldOut, sample_of

CARD = EncoderCard(id="random", architecture="random-v1", dim=64)


def items_of_chance(rng: np.random.Generator, n: int) -> list[Item]:
    """Labels that say nothing, two items a patient."""
    return [
        Item(
            id=item_id("drawn", str(at)),
            dataset="drawn",
            source=f"{at:032x}",
            label="abcd"[int(rng.integers(4))],
            patient=f"patient {at // 2}",
        )
        for at in range(n)
    ]


def test_labels_of_chance_are_found_by_chance_alone(rng: np.random.Generator) -> None:
    vectors = unit(rng.normal(size=(160, CARD.dim)))
    items = items_of_chance(rng, 160)
    sample = sample_of(items, vectors, "site", {})
    fitted = Adaptation.fit("metric", sample, CARD)
    every = np.arange(len(items))
    seen = fitted.apply(vectors, sample.sites)
    near = neighbours_outside(seen, sample.groups, every, every, 10)[0]

    lists = HeldOut(fitted, items, vectors, {})([item.id for item in items] + ["f" * 32], 10)

    labels = sample.labels
    flattered = (labels[near] == labels[:, None]).mean()
    honest = np.mean(
        [
            hit.item.label == item.label
            for item, hits in zip(items, lists, strict=False)
            for hit in hits
        ]
    )
    assert honest < 0.35 < flattered
    assert lists[-1] == []
    assert all(len(hits) == 10 for hits in lists[:-1])
    assert all(
        hit.item.patient != item.patient
        for item, hits in zip(items, lists, strict=False)
        for hit in hits
    )


def test_a_new_picture_of_the_same_kind_is_no_stranger_to_axes_that_labels_chose(
    rng: np.random.Generator,
) -> None:
    rows = unit(rng.normal(size=(1120, CARD.dim)))
    vectors, items = rows[:120], items_of_chance(rng, 120)
    adaptation = Adaptation.fit("metric", sample_of(items, vectors, "site", {}), CARD)
    held_out = HeldOut(adaptation, items, vectors, {})

    flattered = fitted(held_out.stored(), held_out.groups)
    honest = fitted(held_out.stored(), held_out.groups, held_out.vectors)

    assert flattered is not None
    assert honest is not None
    assert honest.far < flattered.far
    new = honest.residual(adaptation.apply(rows[120:], np.full(1000, "")))
    assert (new > flattered.far).mean() < (new > honest.far).mean() < 0.03  # 1 % is meant
