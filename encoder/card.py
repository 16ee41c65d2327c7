"""What makes two embeddings comparable, written down."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args
from unicodedata import category

Resample = Literal["bilinear", "bicubic", "lanczos"]
Pooling = Literal["cls", "mean", "none"]
CellKind = Literal["white", "red"]
"""What lies in the middle of a picture: a nucleated cell; or a red cell or platelet."""

NOT_IN_FINGERPRINT = frozenset({"id", "licence", "source", "field_of_view_um", "notes"})
"""Facts about an encoder that do not change its vectors."""
LATER = frozenset({"adapted", "parts", "fields_um"})
"""Facts that older cards do not have."""


LONGEST = {"notes": 10_000, "source": 2000}
"""Most characters of a text; of all others `LONGEST_TEXT`."""
LONGEST_TEXT = 500
NUMBERS = frozenset(
    {"dim", "input_px", "patch_px", "mean", "std", "parts", "field_of_view_um", "fields_um"}
)
"""Facts that are no text."""
LARGEST = {"dim": 65_536, "input_px": 16_384, "patch_px": 16_384}


class CardError(ValueError):
    """A card that cannot be read or does not hold together."""


@dataclass(frozen=True, kw_only=True)
class FieldsUm:
    """Side of the square that an encoder is shown about one cell, in micrometres."""

    white: float
    """About a nucleated cell."""
    red: float
    """About a red cell or a platelet."""


@dataclass(frozen=True, kw_only=True)
class EncoderCard:
    """The facts about one encoder.

    Two vectors may be compared only if they were made under equal fingerprints, so every
    fact that changes the numbers is in the fingerprint and nothing else is.
    """

    id: str
    """Stable name, `family-size`: `dinobloom-s`."""
    architecture: str
    """What computes the vector: a timm model name, or the name and version of an algorithm."""
    dim: int
    """Length of the vector."""
    input_px: int = 224
    """Side of the square that the network sees, in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each RGB channel, on the scale 0 to 1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Each RGB channel is divided by this, on the scale 0 to 1."""
    resample: Resample = "bicubic"
    """How an image of another size becomes `input_px` (whole image, squashed to a square)."""
    pooling: Pooling = "cls"
    """Which output is the vector: the class token, the mean of the patch tokens, or neither."""
    patch_px: int | None = None
    """Side of one patch in input pixels; `None` for an encoder without patch tokens."""
    weights_sha256: str | None = None
    """Digest of the weights file; `None` for an encoder without weights, or before loading."""
    pos_embed_interp: str | None = None
    """How position embeddings of another grid were resampled; `None` when they were not."""
    engine: str = "torch-fp32"
    """The numbers that the vectors follow: those of PyTorch in float32. A faster engine (bfloat16,
    OpenVINO) may stand in where its vectors were found within cosine 0.9999 of them as the encoder
    was loaded, so that a library built on one machine is served on another; one beyond that
    (int8) would need a name of its own here."""
    stain: str | None = None
    """Name and version of a stain normalisation applied first; `None` for none."""
    adapted: str | None = None
    """Kind and digest of the transform that a library fitted on its own vectors; `None` for the
    encoder's vectors as they are."""
    parts: tuple[int, ...] | None = None
    """Lengths of the vectors that stand behind each other, where several encoders make one vector;
    `None` for one encoder."""
    field_of_view_um: float | None = None
    """Side of the image that the encoder was trained on, in micrometres; `None` if unknown."""
    fields_um: FieldsUm | None = None
    """What pictures of a known scale are cut to before they are embedded
    (`encoder.field_of_view`), so that part of the fingerprint; `None` for an encoder that is shown
    every picture whole."""
    licence: str = "unknown"
    """Licence of the weights."""
    source: str = ""
    """Where the weights come from."""
    notes: str = ""
    """Anything a user of the encoder should know."""

    def __post_init__(self) -> None:
        """Refuse a card whose facts do not have their types and ranges: it is kept for ever."""
        _check_words(self)
        _check_numbers(self)
        if self.patch_px is not None and self.input_px % self.patch_px:
            raise CardError(
                f"card {self.id!r}: input_px {self.input_px} is not a multiple of "
                f"patch_px {self.patch_px}"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when any fact that changes the vectors changes."""
        facts = {k: v for k, v in self._facts().items() if k not in NOT_IN_FINGERPRINT}
        return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """The encoder as errors name it: two that differ never read the same."""
        after = f" after {self.stain}" if self.stain else ""
        through = f" through {self.adapted}" if self.adapted else ""
        return f"{self.id}{after}{through} ({self.fingerprint})"

    def to_json(self) -> str:
        """The card as JSON, with its fingerprint beside the facts."""
        return json.dumps({**self._facts(), "fingerprint": self.fingerprint}, indent=2) + "\n"

    def _facts(self) -> dict[str, Any]:
        """Every field; `LATER` ones only where they say something, so that older fingerprints
        stay."""
        return {k: v for k, v in asdict(self).items() if k not in LATER or v is not None}

    @classmethod
    def from_json(cls, text: str, where: str = "card.json") -> EncoderCard:
        """Read a card written by `to_json`.

        Raises:
            CardError: not JSON, an unknown or missing field, or a fingerprint that does not
                belong to the facts beside it.
        """
        try:
            facts: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CardError(f"{where} is not JSON: {error}") from error
        if not isinstance(facts, dict):
            raise CardError(f"{where} must hold one JSON object, got {type(facts).__name__}")
        recorded = facts.pop("fingerprint", None)
        unknown = set(facts) - {f.name for f in fields(cls)}
        if unknown:
            raise CardError(
                f"{where} has unknown fields {sorted(unknown)}; is it of a newer version?"
            )
        for name in ("mean", "std", "parts"):
            if isinstance(facts.get(name), list):
                facts[name] = tuple(facts[name])
        try:
            if isinstance(facts.get("fields_um"), dict):
                facts["fields_um"] = FieldsUm(**facts["fields_um"])
            card = cls(**facts)
        except TypeError as error:
            raise CardError(f"{where}: {error}") from error
        if recorded is not None and recorded != card.fingerprint:
            raise CardError(
                f"{where} names fingerprint {recorded}, but its facts give {card.fingerprint}: "
                "it was edited by hand; export the encoder again"
            )
        return card

    @classmethod
    def read(cls, path: Path) -> EncoderCard:
        """Read a card from a file."""
        return cls.from_json(path.read_text(encoding="utf-8"), str(path))


def _check_words(card: EncoderCard) -> None:
    for field in fields(card):
        value = getattr(card, field.name)
        if field.name in NUMBERS:
            continue
        optional = field.default is None
        if not isinstance(value, str) and not (optional and value is None):
            raise CardError(f"card: {field.name} must be a text, got {type(value).__name__}")
        most = LONGEST.get(field.name, LONGEST_TEXT)
        if value is not None and (len(value) > most or any(_control(c) for c in value)):
            raise CardError(
                f"card: {field.name} must have at most {most} characters and no control "
                f"characters, got {len(value)} characters"
            )
    if not card.id:
        raise CardError("an encoder card needs an id, got an empty one")
    for name, known in (("resample", get_args(Resample)), ("pooling", get_args(Pooling))):
        if getattr(card, name) not in known:
            raise CardError(f"card {card.id!r}: {name} must be one of {', '.join(known)}")


def _control(character: str) -> bool:
    return category(character) in {"Cc", "Cs"} and character not in "\n\t"


def _check_numbers(card: EncoderCard) -> None:
    for name, most in LARGEST.items():
        value = getattr(card, name)
        if value is None and name == "patch_px":
            continue
        if type(value) is not int or not 1 <= value <= most:
            raise CardError(
                f"card {card.id!r}: {name} must be a whole number from 1 to {most}, got {value!r}"
            )
    for name in ("mean", "std"):
        values = getattr(card, name)
        if not isinstance(values, tuple) or len(values) != 3 or not all(map(_finite, values)):
            raise CardError(f"card {card.id!r}: {name} must be three finite numbers, got {values}")
    if any(s <= 0 for s in card.std):
        raise CardError(f"card {card.id!r}: std must be positive, got {card.std}")
    if card.parts is not None and not _parts_of(card.parts, card.dim):
        raise CardError(
            f"card {card.id!r}: parts must be two or more lengths whose sum is dim {card.dim}, "
            f"got {card.parts!r}"
        )
    view = card.field_of_view_um
    if view is not None and not (_finite(view) and 0 < view <= 1e6):
        raise CardError(f"card {card.id!r}: field_of_view_um must be positive, got {view!r}")
    if card.fields_um is not None and not _sides_of(card.fields_um):
        raise CardError(
            f"card {card.id!r}: fields_um must be two lengths in micrometres, white and red, "
            f"above 0 and below 1e6, got {card.fields_um!r}"
        )


def _sides_of(given: object) -> bool:
    return isinstance(given, FieldsUm) and all(
        _finite(side) and side > 0 for side in (given.white, given.red)
    )


def _parts_of(parts: object, dim: int) -> bool:
    if not isinstance(parts, tuple) or len(parts) < 2:
        return False
    return all(type(part) is int and part > 0 for part in parts) and sum(parts) == dim


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6
