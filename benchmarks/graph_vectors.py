"""Whether the graph of a shipped encoder gives PyTorch's vectors, on real cells.

    python benchmarks/graph_vectors.py [--cells 1000] [--encoder hemaseek-s]

PBC cells under HEMASEEK_DATA, drawn at random: the lowest cosine between the vectors of each engine
and those of PyTorch in float32, and how many of the ten nearest among these cells stay the same.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoder import registry
from encoder.contract import RGB
from encoder.image import read_rgb
from encoder.networks import convolutional, export, graph
from encoder.networks.engines import OpenVino, Torch, precisions, runtime, stack
from encoder.networks.forward import Forward

Rows = NDArray[np.float32]


def cells(count: int) -> list[RGB]:
    data = Path(os.environ.get("HEMASEEK_DATA", "../shared/data"))
    paths = sorted((data / "pbc").rglob("*.jpg"))
    return [read_rgb(path) for path in random.Random(0).sample(paths, min(count, len(paths)))]


def nearest(rows: Rows) -> NDArray[np.int64]:
    scores = rows @ rows.T
    np.fill_diagonal(scores, -2)
    return np.argsort(-scores, axis=1, kind="stable")[:, :10]


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--cells", type=int, default=1000)
    ask.add_argument("--encoder", default=registry.default_encoder())
    given = ask.parse_args()
    folder = registry.shipped()[given.encoder]
    card, model = export.load_model(folder)
    forward = (
        convolutional.Looks(model, card)
        if isinstance(model, convolutional.Lite)
        else Forward(model, card, "mean" if card.pooling == "mean" else "cls")
    )
    pixels = stack(cells(given.cells), card)
    network = runtime().Core().read_model(folder / graph.XML)
    network = runtime().Model([network.output("vectors")], network.get_parameters())
    engines = {"PyTorch fp32": Torch(forward.eval(), torch.device("cpu"))} | {
        f"graph {precision}": OpenVino(network, precision) for precision in precisions()
    }
    rows = {}
    for name, engine in engines.items():
        parts = [engine(pixels[at : at + 16], False)[0] for at in range(0, len(pixels), 16)]
        whole = np.concatenate(parts)
        rows[name] = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    ours = rows.pop("PyTorch fp32")
    known = nearest(ours)
    print(f"{card.title}, {len(ours)} cells\n")
    print("| engine | lowest cosine | of all ten nearest the same | cells with the same ten |")
    print("|---|---|---|---|")
    for name, theirs in rows.items():
        both = [len(set(a) & set(b)) for a, b in zip(known, nearest(theirs), strict=True)]
        print(
            f"| {name} | {(ours * theirs).sum(axis=1).min():.7f} "
            f"| {np.mean(both) / 10:.2%} | {np.mean(np.array(both) == 10):.1%} |"
        )


if __name__ == "__main__":
    main()
