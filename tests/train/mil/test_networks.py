"""The networks in torch and in numpy are the same functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search.mil.pooling import Network
from search.schemas.mil import Pooling
from train.mil.fit import padded
from train.mil.networks import Entry, network, weights_of


@pytest.mark.parametrize("pooling", ["abmil", "abmil_gated", "clam_sb", "transmil", "mean", "max"])
def test_numpy_answers_as_torch_does_also_for_padded_bags(
    rng: np.random.Generator, pooling: Pooling
) -> None:
    torch.manual_seed(0)
    removed = np.linalg.qr(rng.normal(size=(16, 2)))[0].T
    made = network(pooling, Entry(rng.normal(size=16), 2.0, removed), 3)
    bags = [rng.normal(size=(n, 16)).astype(np.float32) for n in (11, 1, 4)]
    with torch.no_grad():
        looked = made(*padded(bags))

    for at, bag in enumerate(bags):
        outputs, attention = Network(pooling, weights_of(made))(bag)

        assert outputs == pytest.approx(looked.outputs[at].numpy(), abs=1e-5)
        assert attention.sum() == pytest.approx(1, abs=1e-5)
        if pooling != "max":
            assert attention == pytest.approx(looked.attention[at, : len(bag)].numpy(), abs=1e-5)


@pytest.mark.parametrize("pooling", ["abmil", "abmil_gated", "clam_sb", "mean", "max"])
def test_the_outputs_without_a_cell_are_those_of_the_bag_without_it(
    rng: np.random.Generator, pooling: Pooling
) -> None:
    torch.manual_seed(0)
    made = network(pooling, Entry(np.zeros(16), 1.0), 3)
    weights = weights_of(made)
    weights |= {"score.weight": weights["score.weight"] * 300} if "score.weight" in weights else {}
    net = Network(pooling, weights)  # one cell has nearly all of the attention
    bag = rng.normal(size=(7, 16)).astype(np.float32)

    found = net.left_out(bag)

    without = [net(np.delete(bag, at, axis=0))[0] for at in range(len(bag))]
    assert found == pytest.approx(np.stack(without), abs=1e-4)
    assert net.left_out(bag[:1]) is None
