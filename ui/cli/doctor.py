"""Checks of an installation, before a night's run rather than after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    detail: str
    """What was found; if it failed, what to do."""

    def to_json(self) -> str:
        """The finding as one line of JSON."""
        return json.dumps(asdict(self))


def examine(settings: Settings) -> list[Finding]:
    """Look at everything that a run needs. Never raises: what fails is a finding."""
    checks: tuple[tuple[str, Callable[[Settings], str]], ...] = (
        ("PyTorch", _torch),
        ("embedded store", _edge),
        ("slide reader", _openslide),
        ("encoder", _encoder),
        ("library", _library),
        ("free space", _space),
    )
    found = [_look(what, check, settings) for what, check in checks]
    return found + list(_collections(settings))


def _look(what: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(what, True, check(settings))
    except Exception as error:  # a check that breaks is what the doctor is for
        return Finding(what, False, str(error) or type(error).__name__)


def _torch(_: Settings) -> str:
    from encoder.contract import has_torch

    if not has_torch():
        return (
            "not installed, and not needed by the encoders that ship; DINOv2, DinoBloom, RedDino, "
            "timm sources and GPUs need it: make install EXTRA=torch"
        )
    import timm
    import torch

    device = "GPU" if torch.cuda.is_available() else "CPU"
    return f"torch {torch.__version__}, timm {timm.__version__}, {device}"


def _edge(_: Settings) -> str:
    from importlib.metadata import version

    import qdrant_edge  # noqa: F401 (loading it is the check)

    return f"qdrant-edge-py {version('qdrant-edge-py')}"


def _openslide(_: Settings) -> str:
    import openslide

    return f"OpenSlide {openslide.__library_version__}"


def _encoder(settings: Settings) -> str:
    from encoder.registry import default_encoder, load

    name = settings.encoder or default_encoder()
    encoder = load(name, device=settings.device)
    card = encoder.card
    return (
        f"{card.id} loads and runs on {encoder.engine}, fingerprint {card.fingerprint}, "
        f"{card.dim} dimensions"
    )


def _library(settings: Settings) -> str:
    from search.library.library import Library

    names = Library.open(settings.library).names()
    return f"{settings.library}: {', '.join(names) or 'no collection yet; run `hemaseek ingest`'}"


def _space(settings: Settings) -> str:
    import shutil

    free = shutil.disk_usage(settings.library).free / 1e9
    if free < 1:
        raise OSError(f"only {free:.1f} GB free where the library lies; make room first")
    return f"{free:.0f} GB where the library lies"


def _collections(settings: Settings) -> Iterator[Finding]:
    """Whether each collection's encoder is the one that is installed here."""
    from encoder.registry import load
    from search.errors import StoreError
    from search.library.library import Library

    try:
        library = Library.open(settings.library)
        names = library.names()
    except StoreError:
        return  # reported by the check of the library
    for name in names:

        def check(settings: Settings, name: str = name) -> str:
            card = library.base(name)
            here = load(library.reference(name), device=settings.device).card
            if here.fingerprint != card.fingerprint:
                raise ValueError(
                    f"holds vectors of {card.id} ({card.fingerprint}), but {here.id} here makes "
                    f"{here.fingerprint}: use the encoder it was made with, or ingest anew"
                )
            return f"encoder {card.id} ({card.fingerprint}){_newer(card.id, name)}"

        yield _look(f"collection {name}", check, settings)


def _newer(used: str, collection: str) -> str:
    """An offer in words where a collection holds vectors of an older shipped encoder."""
    from encoder.registry import default_encoder, shipped

    now = default_encoder()
    if used == now or used not in shipped():
        return ""
    return (
        f"; it stays readable and searchable. {now} ships now and is made to hold in other "
        f"laboratories: `hemaseek reindex --collection {collection} --encoder {now}` builds a "
        "version beside it and can be rolled back"
    )
