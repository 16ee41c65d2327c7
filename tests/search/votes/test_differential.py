"""The differential count: percent of leukocytes, everything else apart, ranges for enough cells."""

from __future__ import annotations

import pytest

from search.votes.differential import Differential, part_of, reference, share_interval


@pytest.mark.parametrize(
    ("label", "part"),
    [
        ("SNE", "leukocytes"),
        ("blasts", "leukocytes"),
        ("WBC", "leukocytes"),
        ("plasma cell", "leukocytes"),
        ("ERB", "nucleated red cells"),
        ("proerythroblast", "nucleated red cells"),
        ("RBC", "red cells"),
        ("target cell", "red cells"),
        ("PLATELET", "platelets"),
        ("megakaryocyte", "other"),
        ("artefact", "other"),
    ],
)
def test_every_label_is_counted_in_one_part(label: str, part: str) -> None:
    assert part_of(label) == part


def test_percent_is_of_leukocytes_and_nucleated_red_cells_are_for_each_hundred() -> None:
    found = Differential({"SNE": 45, "LY": 5, "ERB": 10, "RBC": 900, "PLATELET": 40})

    assert found.percent("SNE") == 90
    assert found.red_per_100 == 20
    assert found.total("red cells") == 900
    assert found.outside("SNE") == ""  # fewer than a hundred leukocytes


def test_stages_are_held_to_one_range_and_blasts_to_none() -> None:
    found = Differential({"SNE": 60, "BNE": 15, "LY": 100, "BL": 5})

    assert (found.outside("SNE"), found.outside("BNE")) == ("", "")  # 42 % together
    assert found.outside("LY") == "high"
    assert found.outside("BL") == "high"
    assert reference("WBC") is None
    shifted = Differential({"SNE": 188, "MY": 6, "MMY": 6})  # 3 % each, 6 % together
    assert shifted.outside("MY") == shifted.outside("MMY") == "high"


def test_a_share_that_counting_error_explains_is_not_called_unusual() -> None:
    assert Differential({"SNE": 98, "BA": 2}).outside("BA") == ""  # of 100: 0.6 to 7 %
    assert Differential({"SNE": 980, "BA": 20}).outside("BA") == "high"
    low, high = share_interval(81, 263)
    assert (round(low, 2), round(high, 2)) == (25.53, 36.62)  # Newcombe 1998, method 3
