"""A network as a graph beside its weights, run by OpenVINO without PyTorch.

`graph.xml` and `graph.bin` take pixels and give the vectors and the patch tokens, normalisation
and every look included. `graph.json` says of which encoder they are, and what PyTorch gives in
float32 for the probe images: an engine is that encoder where it gives the same
(`encoder.networks.engines.MIN_COSINE`).
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encoder.card import EncoderCard
from encoder.contract import RGB, EncoderError, Network, NoPatchTokens, batches
from encoder.download import WrongDigest, digest_of
from encoder.networks import kept
from encoder.networks.engines import (
    MIN_COSINE,
    OpenVino,
    Pixels,
    converted,
    first_equal,
    precisions,
    probes,
    runtime,
    stack,
    threads,
    worst_cosine,
)

if TYPE_CHECKING:
    from torch import nn

XML, BIN, FACTS = "graph.xml", "graph.bin", "graph.json"
FILES = (XML, BIN, FACTS)
NAMES = ("vectors", "patches")
"""The outputs, in this order; an encoder without patch tokens has the first alone."""
PROBES = 16
"""How many probe images an engine is held to; bfloat16 stays near float32 on most."""
ROUNDS = 4
"""Batches that each thread computes for one call."""
Deeper = Callable[[], Network]
"""Loads the same encoder into PyTorch, for what no graph gives."""


class NoGraph(EncoderError):
    """An export without a graph, or with one of other weights."""


@dataclass(frozen=True)
class Facts:
    """What `graph.json` says."""

    fingerprint: str
    """Of the encoder whose graph it is."""
    sha256: Mapping[str, str]
    """Digests of the other two files by name."""
    probes: int
    """How many probe images the vectors are of."""
    vectors: str
    """What PyTorch gives for them in float32: n x dim, little-endian, base64."""
    at_once: int = 16
    """Images that one run takes."""
    format: int = 1

    @property
    def expected(self) -> NDArray[np.floating]:
        """The vectors of the probes, n x dim."""
        return np.frombuffer(base64.b64decode(self.vectors), "<f4").reshape(self.probes, -1)


class Graph:
    """A graph on one engine, safe to call from several threads."""

    def __init__(self, card: EncoderCard, folder: Path, deeper: Deeper | None = None) -> None:
        facts = _facts(folder, card)
        self.card = card
        self._make_patches = partial(_engine, folder, facts, card.input_px, 1)
        self._vectors = _engine(folder, facts, card.input_px, 0)
        self._patches: OpenVino | None = None
        self._deeper = deeper
        self._turn = threading.Lock()
        self._at_once = facts.at_once
        self.batch_size = facts.at_once * threads() * ROUNDS
        self.engine = self._vectors.name

    def vectors(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """The pooled rows, n x dim."""
        parts = (stack(part, self.card) for part in batches(images, self._at_once))
        with self._turn:  # one caller at a time: its batches already use every core
            return np.concatenate(self._vectors.rows(parts))

    def tokens(self, images: Sequence[RGB]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The pooled rows and the patch tokens, n x rows x columns x dim."""
        if self.card.patch_px is None:
            raise NoPatchTokens(self.card.id)
        with self._turn:
            if self._patches is None:
                self._patches = self._make_patches()
        side = self.card.input_px // self.card.patch_px
        parts = [self._patch_rows(self._patches, part) for part in batches(images, self._at_once)]
        return self.vectors(images), np.concatenate(parts).reshape(len(images), side, side, -1)

    def attention(self, images: Sequence[RGB]) -> NDArray[np.floating]:
        """How the last block looks at the patches, by PyTorch: n x rows x columns.

        Raises:
            NoPatchTokens: no transformer, or PyTorch is not installed.
        """
        if self._deeper is None:
            raise NoPatchTokens(self.card.id)
        with self._turn:
            inner: Any = self._deeper()
            self._deeper = lambda: inner
        return np.asarray(inner.attention(images))

    def _patch_rows(self, engine: OpenVino, images: Sequence[RGB]) -> NDArray[np.floating]:
        pixels = stack(images, self.card)
        with self._turn:
            return engine(pixels, False)[0]


def has_one(folder: Path) -> bool:
    """Whether an export has a graph, of whatever weights."""
    return (folder / FACTS).is_file()


def write(folder: Path, card: EncoderCard, module: nn.Module, half: bool) -> None:
    """Write the graph of a module, verified; an older one is replaced.

    Args:
        folder: Of the export.
        card: Of the whole encoder, completed.
        module: Pixels n x side x side x 3 uint8 to a tuple of the network's vectors and, where
            the encoder has any, its patch tokens (n x tokens x dim). An attribute `at_once` says
            how many images a run takes best.
        half: Whether the weights are stored in half precision, so that the graph loses nothing
            by it.

    Raises:
        EncoderError: the graph does not give what the module gives; nothing is left of it.
    """
    import torch

    pixels = probes(card.input_px, PROBES)
    with torch.inference_mode():
        expected = [part.float().numpy() for part in module(torch.from_numpy(pixels))]
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    at_work = Path(tempfile.mkdtemp(prefix=".graph.", dir=folder))
    try:
        model = converted(module, pixels)
        side = card.input_px
        model.reshape([-1, side, side, 3])
        for output, name in zip(model.outputs, NAMES, strict=False):
            output.get_tensor().set_names({name})
        runtime().save_model(model, at_work / XML, compress_to_fp16=half)
        _verify(at_work / XML, pixels, expected, card)
        digests = {name: digest_of(at_work / name) for name in (XML, BIN)}
        vectors = base64.b64encode(expected[0].astype("<f4").tobytes()).decode()
        at_once = int(getattr(module, "at_once", Facts.at_once))
        facts = Facts(card.fingerprint, digests, PROBES, vectors, at_once)
        text = json.dumps(asdict(facts), indent=1, sort_keys=True) + "\n"
        (at_work / FACTS).write_text(text, encoding="utf-8")
        for name in FILES:
            (at_work / name).replace(folder / name)
    finally:
        shutil.rmtree(at_work)


def _verify(
    xml: Path,
    pixels: Pixels,
    expected: Sequence[NDArray[np.floating]],
    card: EncoderCard,
) -> None:
    """In float32, as every processor can compute it."""
    got = OpenVino(runtime().Core().read_model(xml), "fp32")(pixels, True)
    for name, ours, theirs in zip(NAMES, got, expected, strict=False):
        cosine = worst_cosine(ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1))
        if ours.shape != theirs.shape or not cosine >= MIN_COSINE:
            raise EncoderError(
                f"the graph of {card.id!r} gives {name} {ours.shape} at cosine {cosine:.6f} to "
                f"PyTorch's {theirs.shape}; at least {MIN_COSINE} is expected, so no graph was "
                "written"
            )


def _facts(folder: Path, card: EncoderCard) -> Facts:
    again = f"write it anew where PyTorch is installed: python -m encoder.networks.export {folder}"
    if not has_one(folder):
        raise NoGraph(f"{folder} has no graph; {again}")
    try:
        facts = Facts(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
        held = facts.expected.shape[0], facts.sha256[XML], facts.sha256[BIN]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncoderError(f"{folder / FACTS} cannot be read: {error!r}; {again}") from error
    if facts.fingerprint != card.fingerprint or not all(held):
        raise NoGraph(
            f"the graph in {folder} is of an encoder of fingerprint {facts.fingerprint}, its "
            f"weights are of {card.fingerprint}; {again}"
        )
    return facts


def _engine(folder: Path, facts: Facts, side: int, output: int) -> OpenVino:
    """The engine for one output: as it was kept, or compiled, held to the probes, and kept.

    Raises:
        EncoderError: damaged files, or a processor on which no precision gives the encoder.
    """
    facts_of_all = (*sorted(facts.sha256.values()), NAMES[output], str((MIN_COSINE, facts.probes)))
    name = kept.key(*facts_of_all, str(runtime().get_version()), kept.processor())
    found = kept.read(name)
    if found is not None:
        try:
            return OpenVino(found[1], found[0], _at_once(output))
        except Exception as error:  # OpenVINO raises many kinds on what it cannot read
            kept.log.warning("a compiled network cannot be read and is made again: %s", error)
    engine = _compiled(folder, facts, side, output)
    kept.write(name, engine.precision, engine.compiled)
    return engine


def _at_once(output: int) -> int:
    """Batches of vectors are computed side by side, those of patch tokens one by one."""
    return 1 if output else threads()


def _compiled(folder: Path, facts: Facts, side: int, output: int) -> OpenVino:
    for file, digest in facts.sha256.items():
        if file not in FILES or not (folder / file).is_file() or digest_of(folder / file) != digest:
            raise WrongDigest(
                f"{folder / file} is missing or is not the file that {FACTS} beside it names; "
                f"copy the folder again, or python -m encoder.networks.export {folder}"
            )
    openvino = runtime()
    whole = openvino.Core().read_model(folder / XML)
    model = openvino.Model([whole.output(NAMES[output])], whole.get_parameters())
    if output:  # no probe says what patches have to be: in float32 they are the graph's own
        return OpenVino(model, "fp32")
    pixels = probes(side, facts.probes)
    candidates: Iterator[tuple[str, Callable[[], OpenVino]]] = (
        (f"openvino-{precision}", partial(OpenVino, model, precision, _at_once(output)))
        for precision in precisions()
    )
    engine = first_equal(candidates, pixels, facts.expected)
    if engine is None:
        raise EncoderError(
            f"the graph in {folder} does not give this encoder's vectors on this processor under "
            f"OpenVINO {openvino.get_version()}; install PyTorch, or another version of OpenVINO"
        )
    return engine
