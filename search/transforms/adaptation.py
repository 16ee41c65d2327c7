"""A chain of fitted transforms over the vectors of one encoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from search.disk.atomic import write_durably
from search.errors import StoreError
from search.transforms.align import Align
from search.transforms.contract import CannotFit, Sample, Transform, Vectors, Words
from search.transforms.fuse import Fuse
from search.transforms.metric import Metric

KINDS: dict[str, type[Transform]] = {
    "align": Align,
    "metric": Metric,
    "fuse": Fuse,
}
"""Every transform by its name; to add one, add its line. Chains are joined by a plus."""
FACTS = "adaptation.json"
TABLES = "adaptation.safetensors"
"""The two files of an adaptation, in the folder of its version."""
FORMAT = 1


class BadAdaptation(StoreError):
    """Files of an adaptation that are damaged or of another make."""


@dataclass(frozen=True)
class Adaptation:
    """Fitted transforms, one after the other, and what they were fitted on."""

    base: EncoderCard
    """Of the encoder whose vectors go in."""
    steps: tuple[tuple[str, Transform], ...]
    """Kind and transform, in the order in which they are applied."""
    field: str
    """The field of an item that names its site: site, scanner, stain, dataset."""
    fitted_on: str
    """Digest of the rows that it was fitted on."""

    @property
    def kind(self) -> str:
        """Its kinds, joined by a plus: `align+metric`."""
        return "+".join(kind for kind, _ in self.steps)

    @property
    def reads_labels(self) -> bool:
        """Whether labels chose its axes."""
        return any(kind == "metric" for kind, _ in self.steps)

    @property
    def dim(self) -> int:
        """Length of the vectors that come out."""
        return self.steps[-1][1].dim

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that it distinguishes; none where it treats all rows alike."""
        return next((step.sites for _, step in self.steps if step.sites), ())

    @cached_property
    def card(self) -> EncoderCard:
        """The base encoder's card with the adaptation in it, and so in its fingerprint."""
        facts = {"kind": self.kind, "field": self.field, "fitted_on": self.fitted_on}
        whole = sha256(json.dumps([facts, self._facts()], sort_keys=True).encode())
        for name, table in sorted(self._tables().items()):
            whole.update(name.encode() + np.ascontiguousarray(table).tobytes())
        name = f"{self.kind} {whole.hexdigest()[:16]}"
        patches = self.base.patch_px if self.dim == self.base.dim else None
        return replace(self.base, dim=self.dim, patch_px=patches, parts=None, adapted=name)

    @classmethod
    def fit(cls, kind: str, sample: Sample, base: EncoderCard, field: str = "site") -> Adaptation:
        """Fit a chain, each transform on what the ones before it give.

        Args:
            kind: Names of `KINDS`, joined by a plus.
            sample: Vectors of `base`.
            base: The card of the encoder that made them.
            field: What is in `sample.sites`.

        Raises:
            CannotFit: an unknown kind, or a sample that lacks what one of them needs.
        """
        return cls._fitted(
            [(name, KINDS[name].fit) for name in kinds_in(kind)], sample, base, field
        )

    def refitted(self, sample: Sample) -> Adaptation:
        """The same chain fitted on other rows of the same encoder, with the strength that was
        chosen.

        Raises:
            CannotFit: the rows lack what a transform needs.
        """
        chain = [
            (name, partial(Metric.fit, strength=step.strength))
            if isinstance(step, Metric)
            else (name, KINDS[name].fit)
            for name, step in self.steps
        ]
        return self._fitted(chain, sample, self.base, self.field)

    @classmethod
    def _fitted(
        cls,
        chain: Sequence[tuple[str, Callable[[Sample], Transform]]],
        sample: Sample,
        base: EncoderCard,
        field: str,
    ) -> Adaptation:
        sample = replace(sample, parts=base.parts or ())
        vectors, steps = sample.vectors, []
        for name, fit in chain:
            step = fit(sample.with_vectors(vectors))
            vectors = step.apply(vectors, sample.sites)
            steps.append((name, step))
        return cls(base, tuple(steps), field, digest_of(sample))

    def apply(self, vectors: Vectors, sites: Words) -> Vectors:
        """Base vectors (n x base dim) as the version stores them: n x `dim`, rows of length 1."""
        for _, step in self.steps:
            vectors = step.apply(vectors, sites)
        return vectors

    def nearest(self, vectors: Vectors) -> Words:
        """The fitted site that each base vector looks most like; empty where there are none."""
        names = np.full(len(vectors), "")
        for _, step in self.steps:
            if step.sites:
                return step.nearest(vectors)
            vectors = step.apply(vectors, names)
        return names

    def with_site(self, name: str, vectors: Vectors) -> Self:
        """The same knowing one more site, from the unlabelled base vectors of its cells."""
        steps = []
        for kind, step in self.steps:
            known = step.with_site(name, vectors)
            vectors = known.apply(vectors, np.full(len(vectors), name))
            steps.append((kind, known))
        return replace(self, steps=tuple(steps))

    def write(self, folder: Path) -> None:
        """Keep it in the folder of a version, whole or not at all: the facts are written last."""
        from safetensors.numpy import save

        tables = save({name: np.ascontiguousarray(table) for name, table in self._tables().items()})
        facts = {
            "format": FORMAT,
            "base": json.loads(self.base.to_json()),
            "field": self.field,
            "fitted_on": self.fitted_on,
            "steps": [{"kind": kind, **step.facts()} for kind, step in self.steps],
            "tables_sha256": sha256(tables).hexdigest(),
        }
        write_durably(folder / TABLES, tables)
        write_durably(folder / FACTS, json.dumps(facts, indent=1).encode())

    @classmethod
    def read(cls, folder: Path, card: EncoderCard) -> Adaptation | None:
        """What `write` kept in the folder of a version; `None` if its card names no adaptation.

        Raises:
            BadAdaptation: it is missing, damaged, of a newer format, or not that of the card.
        """
        from safetensors.numpy import load

        if card.adapted is None:
            return None
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            content = (folder / TABLES).read_bytes()
            if facts["format"] != FORMAT or facts["tables_sha256"] != sha256(content).hexdigest():
                raise ValueError(f"format {facts['format']}, or tables that are not its own")
            tables = load(content)
            steps = tuple(_steps(facts["steps"], tables))
            base = EncoderCard.from_json(json.dumps(facts["base"]), str(folder / FACTS))
            made = cls(base, steps, facts["field"], facts["fitted_on"])
            if made.card.fingerprint != card.fingerprint:
                raise ValueError(f"it makes vectors of {made.card.title}, not of {card.title}")
            return made
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadAdaptation(
                f"{folder / FACTS} cannot be read: {error}; restore it from a backup, or adapt "
                "the collection again from a version before it"
            ) from error

    def _facts(self) -> list[dict[str, Any]]:
        return [step.facts() for _, step in self.steps]

    def _tables(self) -> dict[str, NDArray[np.float32]]:
        return {
            f"{at}.{name}": table
            for at, (_, step) in enumerate(self.steps)
            for name, table in step.tables().items()
        }


def kinds_in(kind: str) -> list[str]:
    """The kinds of a chain.

    Raises:
        CannotFit: an unknown one, one twice, or `fuse` behind another.
    """
    names = kind.split("+")
    unknown = [name for name in names if name not in KINDS]
    if unknown or len(set(names)) < len(names):
        raise CannotFit(
            f"unknown kind of adaptation {kind!r}; known are {', '.join(KINDS)}, each at most "
            "once, joined by a plus: align+metric"
        )
    if "fuse" in names[1:]:
        raise CannotFit(
            f"in {kind!r} fuse must come first, since it tells the encoders' numbers apart: "
            f"{'+'.join(['fuse', *(name for name in names if name != 'fuse')])}"
        )
    return names


def digest_of(sample: Sample) -> str:
    """Sixteen hex digits over vectors, sites, labels and groups, in order."""
    whole = sha256(np.ascontiguousarray(sample.vectors).tobytes())
    for words in (sample.sites, sample.labels):
        whole.update("\x00".join(words.tolist()).encode())
    whole.update(np.ascontiguousarray(sample.groups).tobytes())
    return whole.hexdigest()[:16]


def _steps(
    listed: list[dict[str, Any]], tables: Mapping[str, NDArray[np.float32]]
) -> Iterator[tuple[str, Transform]]:
    for at, facts in enumerate(listed):
        own = {
            name.partition(".")[2]: table
            for name, table in tables.items()
            if name.partition(".")[0] == str(at)
        }
        yield facts["kind"], KINDS[facts["kind"]].load(facts, own)
