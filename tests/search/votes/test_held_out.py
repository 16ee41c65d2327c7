"""Neighbours under axes that labels chose: what an item's own label did must not come back."""

from __future__ import annotations

import numpy as np

from encoder.card import EncoderCard
from search.neighbours.groups import neighbours_outside
from search.schemas.items import Item, item_id
from search.transforms.adaptation import Adaptation
from search.transforms.contract import unit
from search.votes.held_out import HeldOut, sample_of

CARD = EncoderCard(id="random", architecture="random-v1", dim=64)


def test_labels_of_chance_are_found_by_chance_alone(rng: np.random.Generator) -> None:
    vectors = unit(rng.normal(size=(160, CARD.dim)))
    items = [
        Item(
            id=item_id("drawn", str(at)),
            dataset="drawn",
            source=f"{at:032x}",
            label="abcd"[int(rng.integers(4))],
            patient=f"patient {at // 2}",
        )
        for at in range(160)
    ]
    sample = sample_of(items, vectors, "site")
    fitted = Adaptation.fit("metric", sample, CARD)
    every = np.arange(len(items))
    seen = fitted.apply(vectors, sample.sites)
    near = neighbours_outside(seen, sample.groups, every, every, 10)[0]

    lists = HeldOut(fitted, items, vectors)([item.id for item in items] + ["f" * 32], 10)

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
