"""Errors as problems: one shape, in words, whatever came in."""

from __future__ import annotations

import json

import pytest

from search.api.problems import TABLE, TooMany, problem, refusal, without_names
from search.errors import StoreBusy, StoreDown, StoreError
from search.security.keys import Forbidden, KeysError, NotAllowed
from search.text import complaints


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotAllowed("x"), 401),
        (Forbidden("x"), 403),
        (TooMany("x"), 429),
        (KeysError("x"), 503),
        (StoreDown("x"), 503),
        (StoreBusy("x"), 503),
        (StoreError("x"), 422),
    ],
)
def test_an_expected_error_has_its_status(error: Exception, status: int) -> None:
    answer = refusal(error)

    assert answer is not None
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) == (status == 503)
    assert ("www-authenticate" in answer.headers) == (status == 401)


def test_an_error_that_nothing_expected_is_no_refusal() -> None:
    assert refusal(RuntimeError("a file name")) is None


def test_the_narrower_error_comes_before_the_wider() -> None:
    for at, (kind, _, _) in enumerate(TABLE):
        hidden = [other for other, _, _ in TABLE[:at] if issubclass(kind, other)]
        assert hidden == [], f"{kind.__name__} is never reached"


def test_text_that_is_not_unicode_gets_an_answer() -> None:
    answer = problem(422, "The request does not fit", "a lone surrogate: \ud800")

    assert json.loads(answer.body)["detail"].endswith("\ud800")


def test_a_long_value_is_not_repeated_whole() -> None:
    wrong = {"type": "too_long", "loc": ("body", "ids"), "msg": "too long", "input": "x" * 10_000}

    assert len(complaints([wrong])) < 120


@pytest.mark.parametrize(
    ("text", "path", "kept"),
    [
        ("Roe_Jane.png is damaged", "/in/Roe_Jane.png", "the file is damaged"),
        ("ROE_JANE.PNG is damaged", "/in/Roe_Jane.png", "the file is damaged"),
        (
            "cannot open '/in/Roe Jane.svs': gone",
            "/in/Roe Jane.svs",
            "cannot open 'the file': gone",
        ),
        ("Roe Jane has no scale", "C:/x/Roe Jane.svs", "the file has no scale"),
        ("FileNotFoundError: /srv/lib/Roe/x.parquet", "", "FileNotFoundError: a file"),
        ("../Roe/cells.csv has no column", "", "a file has no column"),
        (r"C:\Users\Roe\a.png is gone", "", "a file is gone"),
        ("Jane-Roe.dcm: no pixels", "", "a file: no pixels"),
        ("a.b.png_old a.b.png.gz x.png", "", "a.b.png_old a file.gz a file"),
        ("." * 300_000 + "pn", "", "." * 300_000 + "pn"),
        ("a.png." * 50_000, "", "a file."),
        ("only 3 of 4 boxes, 0.25 um/px", "/in/ab.png", "only 3 of 4 boxes, 0.25 um/px"),
    ],
)
def test_a_reason_has_no_file_names(text: str, path: str, kept: str) -> None:
    assert without_names(text, path) == kept
