"""Case models on disk: kept whole or not at all, listed, opened and forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from search.disk.atomic import write_durably
from search.disk.space import need_room
from search.errors import NoSuchItem, StoreError
from search.index.contract import Vectors
from search.maintenance.case_models import CARD, SEEN, WEIGHTS
from search.mil.pooling import Floats, Network
from search.schemas.items import Record
from search.schemas.mil import MilModel


class NoSuchModel(NoSuchItem):
    """A case model that is not known, or was forgotten."""

    def __init__(self, id: str) -> None:
        LookupError.__init__(self, f"no case model {id!r}; `hemaseek mil list` shows those there")


class ModelDamaged(StoreError):
    """A case model whose files are not those that were written."""


class Seen(Record):
    """What the networks of a model saw; it stays in the library."""

    fold: dict[str, int]
    """Patient (a case without one: a name of its own) to the network that did not see it."""
    cases: dict[str, str]
    """Case to the label, or time, that it was trained with."""
    risks: tuple[float, ...] = ()
    """Of survival: of the held-out cases, rising."""
    far: float = -1.0
    """Cosine of mean vectors under which a case is like none that it was trained on."""


@dataclass(frozen=True)
class Trained:
    """A case model, ready to answer."""

    card: MilModel
    networks: tuple[Network, ...]
    seen: Seen
    means: Vectors
    """The mean vectors of the training cases, of length 1."""


class Models:
    """The case models of a library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, trained: Trained) -> MilModel:
        """Write a model; returns its card with id and fingerprint.

        Raises:
            DiskTrouble: no room.
        """
        arrays = {f"{at}.{n}": v for at, one in enumerate(trained.networks)
                  for n, v in one.weights.items()}  # fmt: skip
        out = BytesIO()
        np.savez_compressed(out, allow_pickle=False, means=trained.means, **arrays)
        card = trained.card.model_copy(
            update={
                "id": uuid4().hex,
                "model_fingerprint": fingerprint(trained.networks, trained.card.data_fingerprint),
            }
        )
        need_room(self.folder.parent, len(out.getvalue()))
        folder = self.folder / card.id
        folder.mkdir(parents=True)
        write_durably(folder / WEIGHTS, out.getvalue())
        write_durably(folder / SEEN, trained.seen.model_dump_json().encode())
        write_durably(folder / CARD, card.model_dump_json().encode())
        return card

    def sweep(self) -> None:
        """Remove what a training or a deletion that was killed left; only for the process that owns
        the library, before it writes anything."""
        for folder in self.folder.glob("*"):
            if not (folder / CARD).exists():
                shutil.rmtree(folder)

    def all(self, collection: str) -> list[MilModel]:
        """The cards of the models of a collection, oldest first."""
        found = [card for path in self.folder.glob(f"*/{CARD}") if (card := _read(path))]
        found = [card for card in found if card.collection == collection]
        return sorted(found, key=lambda card: (card.made, card.id))

    def get(self, id: str, collection: str) -> MilModel:
        """The card of a model.

        Raises:
            NoSuchModel: it is not known, or of another collection.
        """
        card = _read(self.folder / id / CARD) if id.isalnum() else None
        if card is None or card.collection != collection:
            raise NoSuchModel(id)
        return card

    def open(self, id: str, collection: str) -> Trained:
        """A model with its networks.

        Raises:
            NoSuchModel: it is not known.
            ModelDamaged: its weights are not those that its fingerprint names.
        """
        card = self.get(id, collection)
        try:
            content = BytesIO((self.folder / id / WEIGHTS).read_bytes())
            with np.load(content, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            seen = Seen.model_validate_json((self.folder / id / SEEN).read_bytes())
            means = arrays.pop("means")
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise ModelDamaged(_damaged(card.name)) from error
        parts: dict[int, dict[str, Floats]] = {}
        for name, value in arrays.items():
            at, _, rest = name.partition(".")
            parts.setdefault(int(at), {})[rest] = value
        networks = tuple(Network(card.plan.pooling, parts[at]) for at in sorted(parts))
        if fingerprint(networks, card.data_fingerprint) != card.model_fingerprint:
            raise ModelDamaged(_damaged(card.name))
        return Trained(card, networks, seen, means)

    def forget(self, id: str, collection: str) -> MilModel:
        """Delete a model for good.

        Raises:
            NoSuchModel: it is not known.
        """
        card = self.get(id, collection)
        (self.folder / id / CARD).unlink()  # first: what is half deleted is not there
        shutil.rmtree(self.folder / id)
        return card


def fingerprint(networks: Sequence[Network], data: str) -> str:
    """Sixteen hex digits of the weights of all networks and of what they were trained on."""
    digest = sha256(data.encode())
    for one in networks:
        digest.update(one.pooling.encode())
        for name in sorted(one.weights):
            value: NDArray[np.float32] = np.ascontiguousarray(one.weights[name], np.float32)
            digest.update(f"{name}{value.shape}".encode() + value.tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> MilModel | None:
    try:
        return MilModel.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None  # forgotten, or written by another version


def _damaged(name: str) -> str:
    return f"the files of case model {name!r} are damaged; delete it and train it again"
