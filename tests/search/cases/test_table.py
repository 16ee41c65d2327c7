"""Tables of cases: read as clinics write them, refused in a sentence that names the line."""

from __future__ import annotations

from datetime import date

import pytest

from search.cases.table import BadCaseTable, read_cases


def test_a_table_with_semicolons_gives_records_and_further_columns() -> None:
    header = "Case;Diagnosis;Diagnosis code;Date;Sex;Blasts %"
    text = f"{header}\nC-1;AML;9861/3;2024-03-01;w;34\nC-2;NA;;;;\n"

    first, second = read_cases(text)

    assert (first.case, first.diagnosis, first.diagnosis_code) == ("C-1", "AML", "9861/3")
    assert (first.date, first.sex, first.more) == (date(2024, 3, 1), "female", {"blasts": "34"})
    assert second.model_fields_set - {"more"} == {"case"}


def test_columns_of_images_are_left_to_the_ingest() -> None:
    (row,) = read_cases("path,patient,case,diagnosis,label\na.jpg,P1,C1,AML,blast\n")

    assert (row.patient, row.diagnosis, row.more) == ("P1", "AML", {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patient,diagnosis\nP1,AML\n", "no column 'case'.*; it has patient, diagnosis"),
        ('case,diagnosis\nC1,"AML\n', "quotation mark is never closed"),
        ("case,date\nC1,2024-13-40\n", r"line 2 .*'2024-13-40' is not a day; write it as"),
        ("case,sex\nC1,unclear\n", "'unclear' is not known"),
        ("case,age_band\nC1,67\n", "60-69"),
        ("case,diagnosys\nC1,AML\n", "nearly 'diagnosis'"),
        ("case,case\nC1,C1\n", "twice"),
        ("case,diagnosis\n,AML\n", "line 2 .* names no case"),
        ("case,diagnosis\n", "no row"),
        ("case,diagnosis\nC1\n", "line 2 .* has 1 value for 2 columns; separate them by commas"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(text: str, words: str) -> None:
    with pytest.raises(BadCaseTable, match=words):
        read_cases(text)
