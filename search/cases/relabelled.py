"""What reviews change in the labels of the cells of a case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from search.library.reviews import Reviews
from search.query.context import Context
from search.schemas.items import Item
from search.schemas.questions import Labels

Relabelled = tuple[tuple[Item, str], ...]
"""Items as they are stored, each with the label that its reviewers gave it."""


def relabelled(context: Context, labels: Labels) -> Relabelled:
    """The items of a collection that have a reviewer's label; none where recorded ones count.

    Raises:
        ReviewsDamaged: the log of reviews cannot be read.
    """
    given = context.reviewed(labels)
    if not given:
        return ()
    collection = context.collection

    def read() -> Relabelled:
        found = collection.store.get(sorted(given))
        return tuple((one.item, given[one.item.id].label) for one in found)

    touched = Reviews(collection.versions).touched()
    return context.memory.of(collection, ("relabelled",), read, touched)


def recounted(
    counts: Mapping[str, int], reviews: Iterable[tuple[Item, str]], own: Callable[[Item], bool]
) -> tuple[Counter[str], int]:
    """Counted labels of a case, a reviewer's label in the place of the recorded one.

    Args:
        counts: Cells by recorded label.
        reviews: See `relabelled`.
        own: Whether an item is one of the cells.

    Returns:
        Cells by label, and how many of them count with a reviewer's.
    """
    found, reviewed = Counter(counts), 0
    for item, label in reviews:
        if not own(item) or (item.label is not None and not found[item.label]):
            continue
        if item.label is not None:
            found[item.label] -= 1
        found[label] += 1
        reviewed += 1
    return +found, reviewed
