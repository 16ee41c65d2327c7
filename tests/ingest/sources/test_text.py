"""Text is read for what it is, or refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from ingest.sources.source import BadFacts, Facts, Source, make_item
from ingest.sources.text import TextError, decode_text, on_disk, printable
from search.text import is_missing

TABLE = (
    "path,label,site,stain\n"
    "0.png,Burkitt’s lymphoma,Hospital Clínic,May–Grünwald\n"
    "1.png,“blast”,Universität,Giemsa\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "mac_roman"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_table_reads_the_same_from_every_program(encoding: str, ends: str) -> None:
    content = TABLE.replace("\n", ends).encode(encoding)
    assert decode_text(content)[0] == TABLE


@pytest.mark.parametrize("word", ["Grünwald", "São Paulo", "Érythroblaste", "L’Hôpital", "ÅRHUS"])
@pytest.mark.parametrize("encoding", ["cp1252", "mac_roman"])
def test_single_words_of_old_programs_are_recognised(word: str, encoding: str) -> None:
    assert decode_text(f"label\n{word}\n".encode(encoding))[0] == f"label\n{word}\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"label\n\x81\x8d\x90\xff\xfe\n", "save it as UTF-8"),
        (b"label\nWBC\x07\n", "control characters"),
        ("label\nW\x85BC\n".encode(), "control characters"),
        (b"p\x00a\x00t\x00h\x00", "control characters"),
    ],
    ids=["no encoding", "a bell", "a C1 control", "UTF-16 without a mark"],
)
def test_what_is_no_text_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(TextError, match=told):
        decode_text(content)


def test_text_is_composed_so_that_one_label_is_one_label() -> None:
    apart = unicodedata.normalize("NFD", "Érythroblaste")
    assert decode_text(apart.encode())[0] == "Érythroblaste"
    assert decode_text("EO\u200b,\u00a0MO".encode())[0] == "EO, MO"


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "NA", "n/a", "NULL", "<NA>", " null ", "-"])
def test_words_for_nothing_known_are_no_ids(word: str) -> None:
    assert is_missing(word)


@pytest.mark.parametrize("word", ["", "7", "007", "Nan Zhang", "NA-17", "none seen"])
def test_other_words_are_kept(word: str) -> None:
    assert not is_missing(word)


def test_an_item_carries_composed_words_and_no_control_characters(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    source = Source(tmp_path / "a", unicodedata.normalize("NFD", "Köln"))
    item = make_item(source, Facts(label=unicodedata.normalize("NFD", "Zürich")), None, "cell")
    assert (item.label, item.dataset) == ("Zürich", "Köln")
    with pytest.raises(BadFacts, match=r"patient: it holds control characters \(U\+0009\)"):
        make_item(source, Facts(patient="7\t"), None, "cell")


def test_a_file_is_found_whatever_unicode_form_its_name_has(tmp_path: Path) -> None:
    there = tmp_path / unicodedata.normalize("NFD", "Müller.png")
    there.touch()
    assert on_disk(tmp_path / "Müller.png") == there
    assert on_disk(tmp_path / "Maier.png") is None


def test_a_name_of_any_bytes_can_be_shown() -> None:
    assert printable(b"M\xfcller.png".decode("utf-8", "surrogateescape")) == r"M\xfcller.png"
