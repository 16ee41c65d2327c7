"""Cellpose as a finder: an optional extra, with weights that the user brings."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np

from encoder.contract import RGB
from ingest.smears.cells import FinderError, Found
from ingest.smears.instances import cells_of, package, weights_file
from ingest.smears.scale import RED_CELL_UM, found_at
from search.schemas.items import ScaleOrigin


class Cellpose:
    """Cellpose 4; one instance per pixel, so of two overlapping cells each gets a part.

    The package is BSD-3; its published weights were trained on data for non-commercial use, so
    none come with this product.
    """

    id = "cellpose"

    def __init__(self, network: Any) -> None:
        self._network = network
        self._turn = threading.Lock()
        """One field at a time: the network takes all cores, and a gigabyte for what it computes."""

    def find(
        self, image: RGB, um_per_px: float | None = None, origin: ScaleOrigin = "manifest"
    ) -> Found:
        """Find the cells of a field; see `ingest.smears.finders.Finder.find`."""
        diameter = None if um_per_px is None else RED_CELL_UM / um_per_px
        with self._turn:
            labels, *_ = self._network.eval(image, diameter=diameter)
        size = (image.shape[1], image.shape[0])
        cells = cells_of(np.asarray(labels, np.int32), image)
        return found_at(cells, size, self.id, um_per_px, origin)


def build(weights: Path | None) -> Cellpose:
    """Cellpose with the weights at a path, on the GPU if there is one.

    Raises:
        FinderError: the package or the weights are missing, or the file holds no such weights.
    """
    package("cellpose", "cellpose>=4", "cellpose")
    path = weights_file(weights, "cellpose")
    import torch

    models = importlib.import_module("cellpose.models")
    try:
        network = models.CellposeModel(gpu=torch.cuda.is_available(), pretrained_model=str(path))
    except Exception as error:  # whatever torch raises over a file that is something else
        raise FinderError(
            f"{path} holds no weights of Cellpose 4, as its CellposeModel reads them: {error}"
        ) from error
    return Cellpose(network)
