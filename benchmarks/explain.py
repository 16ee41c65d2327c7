"""Seconds that an explanation of one pair takes, by map, for an encoder on this machine.

uv run --extra all python benchmarks/explain.py [ENCODER ...]

Without names: the encoder that ships, and untrained transformers of two sizes (time does not
depend on the weights). A pair is explained on both of its images, with its checks.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch

from encoder.card import EncoderCard
from encoder.contract import Encoder
from encoder.networks.vit import network, timm_model
from encoder.registry import default_encoder, load
from ingest.samples.synthetic import draw_cell
from search.library.library import Library
from search.library.shards import Entry, make_thumbnail
from search.query.explain import explain
from search.schemas.explanations import ExplainQuestion
from search.schemas.items import Item, item_id
from search.service import Service
from search.settings import Settings

UNTRAINED = {
    "vit-s/14 at 224": ("vit_small_patch14_dinov2", 224, 14, 384),
    "vit-s/8 at 112": ("vit_small_patch8_224", 112, 8, 384),
}
WANTED = ("colours", "correspondence", "attention", "causal", "vote")


def untrained(name: str) -> Encoder:
    torch.manual_seed(0)
    timm_name, side, patch, dim = UNTRAINED[name]
    model = timm_model(timm_name, side, {})
    card = EncoderCard(id=name, architecture=timm_name, dim=dim, input_px=side, patch_px=patch)
    return Encoder(card, network(card, model, "cls", "cpu"))


def measure(name: str, encoder: Encoder) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        library = Library.open(folder)
        entries = []
        for at in range(24):
            label = ("eosinophil", "lymphocyte", "monocyte")[at % 3]
            image = draw_cell(label, at, patient=at, size=160)
            item = Item(id=item_id("d", f"{at}"), dataset="d", source=f"{at}", label=label)
            entries.append(Entry(item, encoder.embed([image])[0], make_thumbnail(image), None))
        with library.create("cells", encoder.card) as cells:
            cells.add(entries)
        service = Service(library, Settings(library=folder), lambda _: encoder)
        item, hit = item_id("d", "0"), item_id("d", "3")
        took: dict[str, float] = {}
        for wanted, check in [
            (("colours", "correspondence"), False),
            *(((w,), True) for w in WANTED),
        ]:
            question = ExplainQuestion(item=item, hits=(hit,), maps=wanted, check=check)
            explain(service, question, None)
            started = perf_counter()
            found = explain(service, question, None)
            took[" + ".join(wanted) + ("" if check else ", unchecked")] = perf_counter() - started
            if found.left_out:
                took.popitem()
        service.close()
    print(f"| {name} | {encoder.engine} | " + " | ".join(f"{k} {v:.2f} s" for k, v in took.items()))


def main() -> None:
    names = sys.argv[1:]
    for name in names or [default_encoder()]:
        measure(name, load(name))
    if not names:
        for name in UNTRAINED:
            measure(name, untrained(name))


if __name__ == "__main__":
    main()
