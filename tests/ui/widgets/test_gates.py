"""Gates in an address."""

from __future__ import annotations

import math

import numpy as np

from ui.widgets.gates import CORNERS, read, simplified, written
from ui.widgets.scatter import Gate


def test_a_link_has_the_gates_that_were_drawn() -> None:
    turns = [at * math.tau / 300 for at in range(300)]
    drawn = tuple((12.3456789 * math.cos(turn), -3 + 4 * math.sin(turn)) for turn in turns)
    gates = [Gate("Gate 1", simplified(drawn)), Gate("b|:c", ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)))]

    again = read(written(gates))

    assert [gate.corners for gate in again] == [gate.corners for gate in gates]
    assert again[0].name == "Gate 1"
    assert len(gates[0].corners) == CORNERS
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-14, 14, 4000), rng.uniform(-8, 2, 4000)
    whole, kept = Gate("", drawn).holds(x, y), gates[0].holds(x, y)
    assert (whole == kept).mean() > 0.98


def test_what_is_no_gate_in_a_link_is_left_out() -> None:
    assert read("") == []
    assert read("Gate 1:1,2;3|:1,2;3,4;5,6|Gate 2:1,2;3,4") == []
