"""The collection that is looked at, as links name it."""

from __future__ import annotations

from search.client.client import Client
from search.schemas.collections import CollectionFacts
from ui.session.place import Place


def test_a_link_names_the_collection_where_there_are_several() -> None:
    found = [
        CollectionFacts(
            name=name, items=1, encoder="colour", fingerprint="f" * 16, dim=3, default=True
        )
        for name in ("cells", "marrow")
    ]
    with Client("http://127.0.0.1:1") as client:
        assert Place(client, found[:1], "cells").in_address is None
        assert Place(client, found, "marrow").in_address == "marrow"
