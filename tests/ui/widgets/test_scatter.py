"""Gates that are drawn on a map of points."""

from __future__ import annotations

import numpy as np

from ui.widgets.scatter import Gate


def test_a_gate_contains_what_lies_inside_also_where_it_is_concave() -> None:
    bent = Gate("L", ((0, 0), (4, 0), (4, 1), (1, 1), (1, 4), (0, 4)))
    x = np.array([0.5, 3.0, 3.0, 0.5, -1.0])
    y = np.array([0.5, 0.5, 3.0, 3.0, 0.5])

    assert bent.holds(x, y).tolist() == [True, True, False, True, False]


def test_a_gate_that_crosses_itself_follows_the_even_odd_rule() -> None:
    bow = Gate("bow", ((0, 0), (2, 2), (2, 0), (0, 2)))

    inside = bow.holds(np.array([0.2, 1.8, 1.0]), np.array([1.0, 1.0, 0.2]))

    assert inside.tolist() == [True, True, False]
