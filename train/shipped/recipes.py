"""How the shipped encoder may be trained: on two cores in an hour, or on a GPU in minutes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from encoder.networks import lite


@dataclass(frozen=True)
class Recipe:
    """Settings of a run. Its length is a time, so that a shared machine ends it as well trained
    as it can be."""

    id: str
    """Of the encoder that comes out."""
    about: str
    network: str
    """`efficientnet-lite0`, from ImageNet's weights, or a timm transformer, from fresh ones."""
    minutes: float
    """How long training lasts; the learning rate falls to nothing by then."""
    tested: bool
    """Whether a whole run of it was made, not only a toy one."""
    px: int = 96
    """Side of a view."""
    input_px: int = 128
    """Side at which the encoder is used. Views are often zoomed, whole images are not; a larger
    input makes up for it (Touvron et al. 2019, arXiv 1906.06423)."""
    patch_px: int = 16
    """Side of a patch in input pixels."""
    dim: int = 256
    """Length of a vector."""
    looks: tuple[float, ...] = (1.0,)
    """Middle squares that a vector is the mean of (`encoder.networks.lite`)."""
    batch: int = 64
    rate: float = 5e-4
    """Learning rate; thrice that for what is fresh: projection and kinds."""
    frozen: int = 0
    """First parts of the network that keep ImageNet's weights."""
    warmup: int = 150
    """Steps over which the learning rate rises."""
    decay: float = 0.05
    """Of weights."""
    reversal: float = 0.0
    """Weight of the reversed gradient of a guess of the laboratory; 0 leaves the guess out."""
    views: int | None = None
    """Ends a run in place of its time, so that runs on a shared machine learn alike."""
    average: float = 0.998
    """Share that the running mean of the weights, which is exported, keeps at each step."""

    def of_views(self, views: int | None) -> Recipe:
        """This recipe for so many views, of which its rise takes a tenth at most."""
        if views is None:
            return self
        rise = max(1, views // self.batch // 10)
        return replace(self, views=views, warmup=min(self.warmup, rise))


RECIPES: dict[str, Recipe] = {
    "cpu": Recipe(
        id="hemaseek-s",
        about="EfficientNet-Lite0 from ImageNet's weights, on two cores",
        network=lite.NAME,
        minutes=80.0,
        tested=True,
        looks=(1.0, 0.8, 0.6),
        frozen=3,
    ),
    "gpu": Recipe(
        id="hemaseek-s",
        about="EfficientNet-Lite0 from ImageNet's weights, on a GPU",
        network=lite.NAME,
        minutes=9.0,
        tested=True,
        looks=(1.0, 0.7),
        batch=512,
        rate=1e-3,
        warmup=300,
        average=0.999,
    ),
    "gpu-vit": Recipe(
        id="hemaseek-vit-s",
        about="ViT-S/14 from fresh weights, on a GPU",
        network="vit_small_patch14_dinov2",
        minutes=5.0,
        tested=True,
        px=112,
        input_px=112,
        patch_px=14,
        dim=384,
        batch=512,
        rate=7e-4,
        warmup=500,
        average=0.999,
    ),
}
