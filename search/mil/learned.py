"""A case as the attention of a case model pools it: one vector, by networks that did not see it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.cases.learned import Pool
from search.index.contract import Vectors
from search.mil.models import Trained
from search.mil.predict import OtherEncoder


def pooling(trained: Trained, card: EncoderCard) -> Pool:
    """How a model pools the cells of a case (Ilse, Tomczak and Welling 2018, equation 7).

    The vector is of the encoder's own space, so that those of different folds can be compared.

    Args:
        trained: The model.
        card: Of the collection's encoder.

    Raises:
        OtherEncoder: the collection's vectors are of another encoder by now.
    """
    if card.fingerprint != trained.card.fingerprint:
        raise OtherEncoder(trained.card, card.title)

    def pool(patients: Sequence[str], cells: Vectors, weights: NDArray[np.float64]) -> Vectors:
        folds = {at for one in patients if (at := trained.seen.fold.get(one)) is not None}
        networks = [trained.networks[folds.pop()]] if len(folds) == 1 else trained.networks
        attention = np.mean([one(cells)[1] for one in networks], axis=0) * weights
        found = attention @ cells
        length = float(np.linalg.norm(found))
        return np.asarray(found / length if length > 1e-12 else found, np.float32)

    return pool
