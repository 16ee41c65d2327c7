"""The case models of a collection as files of its snapshot: they lie beside it, one folder each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from search.disk.atomic import write_durably

FOLDER = "mil"
"""In the library, and in a snapshot, where a file is called `mil/ID.NAME`."""
CARD, WEIGHTS, SEEN = "model.json", "weights.npz", "seen.json"
"""The card is written last, and read first."""
FILE = re.compile(rf"{FOLDER}/([0-9a-f]{{32}})\.(?:{CARD}|{WEIGHTS}|{SEEN})")


def saved(library: Path, collection: str) -> dict[str, bytes]:
    """The files of the models of a collection, by their names in a snapshot.

    Args:
        library: Its folder.
        collection: Whose models; one that is deleted meanwhile is left out.
    """
    found: dict[str, bytes] = {}
    for card in sorted((library / FOLDER).glob(f"*/{CARD}")):
        try:
            files = {name: (card.parent / name).read_bytes() for name in (CARD, WEIGHTS, SEEN)}
            mine = json.loads(files[CARD])["collection"] == collection
        except (OSError, ValueError, KeyError, TypeError):
            continue  # deleted just now, or written by another version: not listed either
        if mine:
            found |= {f"{FOLDER}/{card.parent.name}.{name}": one for name, one in files.items()}
    return found


def bring_back(snapshot: Path, names: Iterable[str], library: Path, collection: str) -> None:
    """Put the models of a snapshot into a library; those that are there already stay.

    Args:
        snapshot: Its folder, verified.
        names: Of its files; what is no model is passed over.
        library: The folder of the library.
        collection: Whose models they become; under another name than before they get ids of
            their own where theirs are taken.
    """
    ids = {found[1] for one in names if (found := FILE.fullmatch(one))}
    for id in sorted(ids):
        files = {
            name: (snapshot / FOLDER / f"{id}.{name}").read_bytes()
            for name in (WEIGHTS, SEEN, CARD)
        }
        card = json.loads(files[CARD])
        folder = library / FOLDER / id
        if (folder / CARD).exists():
            if json.loads((folder / CARD).read_bytes())["collection"] == collection:
                continue
            folder = folder.with_name(uuid4().hex)
        card |= {"id": folder.name, "collection": collection}
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (files | {CARD: json.dumps(card).encode()}).items():
            write_durably(folder / name, content)


def is_model_file(name: str) -> bool:
    """Whether a file of a snapshot belongs to a case model."""
    return FILE.fullmatch(name) is not None
