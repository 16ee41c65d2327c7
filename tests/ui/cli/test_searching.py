"""Every way to search that the service has works at the terminal, and mistakes are explained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import hemaseek
from random_library import CARD, random_entries, random_service

from search.schemas.answers import Hit
from search.schemas.items import Item


@pytest.fixture(name="entries", scope="module")
def _entries() -> list[Item]:
    return [entry.item for entry in random_entries(np.random.default_rng(4), 60, 6)]


@pytest.fixture(name="library", scope="module")
def _library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asking")
    made = random_entries(np.random.default_rng(4), 60, 6)
    service = random_service(folder, made)
    service.create("other", replace(CARD, id="other-random")).collection.add(
        [replace(one, vector=np.abs(one.vector)) for one in made]
    )
    service.close()
    return folder / "library"


def lines(library: Path, *words: str) -> list[Any]:
    done = hemaseek(*words, "--library", str(library))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_search_groups_counts_and_leaves_a_named_patient_out(
    library: Path, entries: list[Item]
) -> None:
    nameless = next(item for item in entries if item.patient is None)
    words = ["--patient", "P1", "--group-by", "patient", "-k", "3", "--facet", "label", "--exact"]
    *found, facets = lines(library, "search", nameless.id, *words)

    patients = [Hit.model_validate(one).item.patient for one in found]
    assert "P1" not in patients
    assert len(patients) == len(set(patients)) == 3
    assert sum(facets["facets"]["label"].values()) > 10


def test_ranks_of_two_collections_are_fused(library: Path, entries: list[Item]) -> None:
    words = ["--collection", "cells", "--fuse-with", "other"]
    found = lines(library, "search", entries[0].id, "-k", "30", *words)
    (vote,) = lines(library, "vote", entries[0].id, "-k", "30", *words)

    scores = [one["score"] for one in found]
    assert scores != sorted(scores, reverse=True)
    assert [hit["item"]["id"] for hit in vote["answer"]["hits"]] == [
        one["item"]["id"] for one in found
    ]
    assert vote["answer"]["fused_with"]["encoder"] == "other-random"


def test_the_own_group_is_found_only_if_allowed(library: Path, entries: list[Item]) -> None:
    item = next(item for item in entries if item.patient is not None)
    without = lines(library, "search", item.id, "-k", "40")
    everyone = ["--allow", "item", "--allow", "patient", "--allow", "case", "--allow", "source"]
    with_group = lines(library, "search", item.id, "-k", "40", *everyone, "--allow", "duplicate")

    assert item.patient not in {one["item"]["patient"] for one in without}
    assert with_group[0]["item"]["id"] == item.id


def test_a_search_is_refined_by_examples(library: Path, entries: list[Item]) -> None:
    like, unlike = entries[0], entries[1]
    found = lines(library, "refine", "--like", like.id, "--unlike", unlike.id, "-k", "4")

    assert len(found) == 4
    assert not {like.id, unlike.id} & {one["item"]["id"] for one in found}


def test_a_mistake_is_answered_in_words() -> None:
    slips = {
        ("search", "no-such-file.png"): "neither an image file nor the id",
        ("search", "x", "--allow", "cousin"): "no relation 'cousin'",
        ("refine", "--region", "1,2,3"): "expected X,Y,W,H",
        ("vote", "x", "--weighting", "loud"): "is not one of 'uniform', 'similarity', 'softmax'",
    }
    for words, message in slips.items():
        done = hemaseek(*words)
        assert done.returncode == 2
        assert message in " ".join(done.stderr.replace("│", " ").split())
