"""InstanSeg as a finder: an optional extra, with weights that the user brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from encoder.contract import RGB
from ingest.smears.cells import FinderError, Found
from ingest.smears.instances import cells_of, package, weights_file
from ingest.smears.scale import RED_CELL_UM, found_at
from search.schemas.items import ScaleOrigin


class InstanSeg:
    """InstanSeg works at a physical scale; without one, it gets the classical estimate."""

    id = "instanseg"

    def __init__(self, network: Any) -> None:
        self._network = network

    def find(
        self, image: RGB, um_per_px: float | None = None, origin: ScaleOrigin = "manifest"
    ) -> Found:
        """Find the cells of a field; see `ingest.smears.finders.Finder.find`.

        Raises:
            FinderError: no scale is known and no red cell gives one.
        """
        scale = um_per_px or self._estimate(image)
        found = self._network.eval_small_image(
            np.moveaxis(image, 2, 0), pixel_size=scale, target="cells", return_image_tensor=False
        )
        labels = np.asarray(found.cpu()).astype(np.int32).reshape(-1, *image.shape[:2])[-1]
        size = (image.shape[1], image.shape[0])
        return found_at(cells_of(labels, image), size, self.id, um_per_px, origin)

    @staticmethod
    def _estimate(image: RGB) -> float:
        from ingest.smears.density import Background
        from ingest.smears.diameter import usual_diameter

        diameter = usual_diameter(image, Background.of(image))
        if diameter is None:
            raise FinderError(
                "the finder 'instanseg' needs um_per_px, and no red cell in the field gives it; "
                "give the scale"
            )
        return RED_CELL_UM / diameter


def build(weights: Path | None) -> InstanSeg:
    """InstanSeg with the TorchScript model at a path, on the GPU if there is one.

    Raises:
        FinderError: the package or the weights are missing.
    """
    module = package("instanseg", "instanseg-torch", "instanseg")
    path = weights_file(weights, "instanseg")
    import torch

    network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return InstanSeg(module.InstanSeg(network, verbosity=0))
