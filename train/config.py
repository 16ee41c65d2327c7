"""One frozen class is a run's configuration, its command line, its help and its record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from train.presets import PRESETS

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=8, le=2048)]
Range = tuple[float, float]
Size = Literal["ti", "s", "b", "l", "g"]

RUNTIME = frozenset(
    {
        *("out", "device", "threads", "workers", "compile", "max_minutes", "hold"),
        *("checkpoint_every", "log_every", "tensorboard", "force", "recompute", "shard"),
    }
)
"""Fields that may differ between a run and its resumption: they do not change its numbers."""


class Stage(BaseModel):
    """A part of a run at its own resolution. What is left out stays as in the stage before."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: Positive
    """Optimiser steps of this stage."""
    global_px: Pixels | None = None
    """Side of the global views."""
    local_px: Pixels | None = None
    """Side of the local views."""
    batch: Positive | None = None
    """Images per step, over all processes."""


class Cuts(BaseModel):
    """How pieces are cut from fields and slides, when they are drawn."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=()
    )

    cut: tuple[Literal["whole", "patches", "cells", "tiles"], ...] = ("whole",)
    """What an image is, of all sources or of each (`patches,whole`): a whole file; patches of a
    smear field in a grid at its own scale; cells that are found in a field; tiles of a slide."""
    cut_px: Pixels = 224
    """Side of a patch in pixels of its field, and of a tile in pixels of its scale."""
    cut_um_per_px: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        0.5,
    )
    """Scales of tiles in micrometres per pixel; with several (`0.25,0.5`), each slide is tiled at
    each."""
    cut_covered: Share = 0.1
    """The blank rule: the least share of a patch that cells cover, or of a tile that tissue does;
    0 keeps empty glass."""
    cut_kinds: tuple[Literal["white", "red", "platelet"], ...] = ("red",)
    """Kinds of cells that are cut."""
    finder: str = "classical"
    """What finds them: classical, or cellpose or instanseg where installed."""
    finder_weights: Path | None = None
    """The weights file of cellpose or instanseg, which is never downloaded."""


class TrainConfig(Cuts):
    """Train an encoder on unlabelled images with DINOv2 self-supervision.

    A preset gives every value; what is named on the command line overrides it. The result is
    saved as config.json beside the weights and loads back into this class.
    """

    preset: Literal["dinov2", "dinobloom", "reddino", "scratch"] = "dinobloom"
    """Where the values come from; `python -m train presets` lists them with every deviation."""
    data: tuple[Path, ...] = Field(min_length=1)
    """Sources of images: folders, CSV manifests (column `path`), or folders made by `pack`."""
    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Sampling weight of each source; empty draws every image equally often."""
    out: Path
    """Folder of the run. If it holds a checkpoint, the run goes on from there."""
    seed: int = 0
    """Every random number follows from seed, step and process."""

    # What is trained
    start: str = "random"
    """Encoder to start from (a registered name, or an exported folder), or `random`."""
    size: Size = "s"
    """With `random`: width, depth and heads of the ViT (ti 192, s 384, b 768, l 1024, g 1536)."""
    patch_px: Positive = 14
    """With `random`: side of one patch."""
    stem: Literal["patch", "conv"] = "patch"
    """With `random`: one linear projection per patch, or small convolutions down to the patch."""
    embed_dim: Positive | None = None
    """With `random`: width, in place of the size's."""
    depth: Positive | None = None
    """With `random`: blocks, in place of the size's."""
    heads: Positive | None = None
    """With `random`: attention heads, in place of the size's."""
    layer_scale: float = Field(default=1e-5, ge=0)
    """With `random`: initial LayerScale; 0 leaves LayerScale out."""
    tuning: Literal["full", "lora"] = "full"
    """Train every weight, or low-rank adapters (merged on export)."""
    lora_rank: Positive = 8
    """Rank of the adapters."""
    lora_alpha: float = Field(default=16.0, gt=0)
    """The adapters are scaled by alpha / rank."""

    # Length and resolution
    steps: Positive = 4000
    """Optimiser steps of the first stage."""
    batch: Positive = 256
    """Images per optimiser step, over all processes."""
    micro_batch: Positive | None = None
    """At most so many images per forward pass and process; a process's share of the batch is cut
    into parts of nearly equal size, whose gradients add up to those of `batch`. Sinkhorn-Knopp
    sees one part of every process together, KoLeo one part of one. `None`: all at once."""
    global_px: Pixels = 224
    """Side of the two global views; a multiple of the patch."""
    local_px: Pixels = 98
    """Side of the local views."""
    local_crops: Annotated[int, Field(ge=0)] = 8
    """Local views per image. 0 is a true zero: nothing is cut or forwarded."""
    stages: tuple[Stage, ...] = ()
    """Further stages after the first, as JSON: `[{"steps": 500, "global_px": 224}]`."""

    # Views
    image_px: Pixels | None = None
    """Side of the square that images are squashed to when decoded; `None`: as global views."""
    resample: Literal["bilinear", "bicubic", "lanczos"] = "lanczos"
    """Filter of that resize."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """How crops are resampled on the device."""
    global_scale: Range = (0.32, 1.0)
    """Area of a global view as a share of the image."""
    local_scale: Range = (0.05, 0.32)
    """Area of a local view as a share of the image."""
    global_centre: Share = 0.0
    """How far global views keep to the middle of the image: 0 anywhere, 1 in the middle only."""
    local_centre: Share = 0.0
    """The same for local views."""
    flip: Share = 0.5
    """Probability of each of the horizontal and the vertical flip."""
    rotate90: Share = 0.0
    """Probability of a turn by a random multiple of 90 degrees."""
    rotate: Share = 0.0
    """Probability of a turn by any angle."""
    jitter: Share = 0.8
    """Probability of colour jitter."""
    brightness: float = Field(default=0.4, ge=0)
    """Jitter: factor from 1 - this to 1 + this."""
    contrast: float = Field(default=0.4, ge=0)
    """Jitter: factor from 1 - this to 1 + this."""
    saturation: float = Field(default=0.2, ge=0)
    """Jitter: factor from 1 - this to 1 + this."""
    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Jitter: shift of the hue in turns, from -this to this."""
    grayscale: Share = 0.2
    """Probability of losing the colour."""
    blur: tuple[Share, Share, Share] = (1.0, 0.1, 0.5)
    """Probability of a Gaussian blur for the first global, second global, and local views."""
    blur_sigma: Range = (0.1, 2.0)
    """Standard deviation of the blur in pixels."""
    solarise: tuple[Share, Share, Share] = (0.0, 0.2, 0.0)
    """Probability of solarisation, in the order of `blur`."""
    hed: Share = 0.0
    """Probability of haematoxylin-eosin-DAB jitter: for H&E, not for smears."""
    hed_factor: float = Field(default=0.07, ge=0)
    """Strength of that jitter."""
    pixel_ops: Annotated[int, Field(ge=0)] = 0
    """Pixel operations per view out of RedDino's set; 0 for none."""
    pixel_p: Share = 0.85
    """Probability of each chosen pixel operation."""
    pixel_skip: tuple[str, ...] = ()
    """Pixel operations left out of the set, by name."""

    # Heads and losses
    dino_weight: float = Field(default=1.0, ge=0)
    """Weight of the DINO loss between class tokens."""
    dino_global_scale: float | None = None
    """Scale of the global part of the DINO loss; `None`: 2 / (2 + 2 x local crops)."""
    ibot_weight: float = Field(default=1.0, ge=0)
    """Weight of the iBOT loss on masked patches; 0 masks nothing."""
    contrast_weight: float = Field(default=0.0, ge=0)
    """Weight of the contrastive loss between the two global views (NT-Xent, on the mean of the
    patch tokens); with `dino_weight` and `ibot_weight` 0 the teacher is only a running mean."""
    contrast_temperature: float = Field(default=0.2, gt=0)
    """Its temperature."""
    guide: Path | None = None
    """Numbers that the mean of the patch tokens is to predict, whatever the view: an .npy of one
    row per image of all sources, in their order."""
    guide_weight: float = Field(default=1.0, gt=0)
    """Weight of that mean squared error, over the rows' own mean square."""
    koleo_weight: float = Field(default=0.1, ge=0)
    """Weight of the KoLeo regulariser; 0 leaves it out."""
    centering: Literal["sinkhorn_knopp", "moving_average"] = "sinkhorn_knopp"
    """How the teacher's targets are kept from collapsing."""
    separate_ibot_head: bool = False
    """Whether iBOT has a head of its own."""
    prototypes: Positive = 65536
    """Outputs of the DINO head (and of a shared one)."""
    ibot_prototypes: Positive | None = None
    """Outputs of a separate iBOT head; `None`: as many as `prototypes`."""
    head_hidden: Positive = 2048
    """Hidden width of the heads."""
    head_bottleneck: Positive = 256
    """Width before the prototypes."""
    ibot_bottleneck: Positive | None = None
    """The same for a separate iBOT head; `None`: `head_bottleneck`."""
    head_layers: Positive = 3
    """Linear layers of a head before its prototypes."""
    mask_probability: Share = 0.5
    """Share of global views that are masked."""
    mask_ratio: Range = (0.1, 0.5)
    """Share of patches that are masked in such a view."""
    student_temperature: float = Field(default=0.1, gt=0)
    """Softmax temperature of the student."""

    # Schedules
    lr: float = Field(default=2e-4, gt=0)
    """Learning rate at a batch of 1024; scaled by the square root of batch / 1024."""
    min_lr: float = Field(default=1e-6, ge=0)
    """Learning rate at the end (not scaled)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 400
    """Steps over which the learning rate rises from 0."""
    weight_decay: Range = (0.04, 0.2)
    """At the start and at the end, cosine between."""
    momentum: Range = (0.994, 1.0)
    """Of the teacher's moving average, at the start and at the end, cosine between."""
    teacher_temperature: Range = (0.04, 0.07)
    """Softmax temperature of the teacher before and after its warm-up."""
    teacher_warmup_steps: Annotated[int, Field(ge=0)] = 1200
    """Steps over which that temperature rises, linearly."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Learning rate factor per block, counted from the last."""
    patch_embed_lr: float = Field(default=0.2, gt=0)
    """Learning rate factor of the patch embedding."""
    drop_path: float = Field(default=0.3, ge=0, lt=1)
    """Share of images that skip each residual branch of the student, and cost nothing there."""
    clip: float = Field(default=3.0, ge=0)
    """Largest norm of the gradients of backbone and of each head; 0 for no limit."""
    betas: Range = (0.9, 0.999)
    """Of AdamW."""
    head_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """First steps in which only the fresh heads learn; the backbone is frozen."""
    freeze_last_layer_steps: Annotated[int, Field(ge=0)] = 0
    """First steps in which the prototypes do not move."""

    # Watch
    probe: Path | None = None
    """Labelled images for the kNN probe: a folder with one folder per label, a manifest with a
    column `label`, or a packed folder. `None`: the collapse watch alone."""
    probe_images: Positive = 2000
    """At most this many of them, evenly over the labels."""
    probe_k: Positive = 20
    """Neighbours that vote."""
    watch_every: Positive = 250
    """Steps between two looks."""
    collapse_cosine: float = Field(default=0.999, gt=0, le=1)
    """A mean cosine between images above this is a collapse."""
    collapse_rank: Share = 0.2
    """So is an effective rank below this share of the start's."""
    collapse_patience: Positive = 2
    """Looks in a row that must show it before the run stops."""
    force: bool = False
    """Export even what is worse than its parent, or collapsed."""

    # Machine
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast; `auto` is bf16 on a GPU and fp32 on a CPU."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of torch; 0 leaves its choice. Another number changes sums in the last bit."""
    workers: Positive = 8
    """Threads that decode images."""
    hold: Literal["disk", "memory", "device"] = "memory"
    """Where decoded images wait: decode anew each time, or keep them as uint8."""
    recompute: Literal["auto", "on", "off"] = "auto"
    """Keep only what goes into each block and compute the rest again for its gradients: about a
    third more arithmetic, a small part of the memory. `auto`: with more than 24 blocks (ViT-g)."""
    shard: bool = False
    """Under torchrun: each process keeps a part of every weight and of what AdamW knows of it
    (FSDP2), in place of a copy. Checkpoints are the same, so a run may go on either way."""
    compile: bool = False
    """Compile the blocks with torch.compile: worth it on a GPU."""
    max_corrupt: Share = 0.01
    """More unreadable images than this stop the run; fewer are left out, counted and named."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Stop cleanly at a checkpoint after so many minutes."""
    checkpoint_every: Positive = 250
    """Steps between two checkpoints."""
    log_every: Positive = 10
    """Steps between two lines of the log."""
    tensorboard: bool = True
    """Write TensorBoard events beside the log."""

    # Record of the encoder
    name: str = ""
    """Id on the exported card; the name of `out` if empty."""
    licence: str = "unknown"
    """Licence of the weights, for the card."""
    field_of_view_um: float | None = Field(default=None, gt=0)
    """Side of a training image in micrometres, for the card."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = PRESETS.get(given.get("preset", cls.model_fields["preset"].default))
        return {**(preset.values if preset else {}), **given}

    @field_validator("global_scale", "local_scale", "mask_ratio", "blur_sigma")
    @classmethod
    def _rising(cls, ends: Range) -> Range:
        if not 0 < ends[0] <= ends[1]:
            raise ValueError(f"expected two numbers with 0 < low <= high, got {ends}")
        return ends

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.weights and len(self.weights) != len(self.data):
            raise ValueError(
                f"{len(self.data)} sources need {len(self.data)} weights, got {len(self.weights)}"
            )
        if not (self.distils or self.contrast_weight or self.guide):
            raise ValueError(
                "dino_weight, ibot_weight and contrast_weight are all 0 and there is no guide: "
                "nothing is left to learn"
            )
        if len(self.cut) not in (1, len(self.data)):
            raise ValueError(
                f"cut needs one word, or one for each of {len(self.data)} sources; "
                f"got {len(self.cut)}"
            )
        if self.shard and self.tuning == "lora":
            raise ValueError("adapters are small: with tuning lora leave shard out")
        if max(self.mask_ratio) > 1 or max(self.global_scale) > 1 or max(self.local_scale) > 1:
            raise ValueError("mask_ratio, global_scale and local_scale end at 1")
        return self

    def plan(self) -> list[Part]:
        """The stages in order with nothing left out."""
        parts = [Part.model_validate(self, from_attributes=True)]
        for stage in self.stages:
            given = {k: v for k, v in stage.model_dump().items() if v is not None}
            parts.append(Part(**{**parts[-1].model_dump(), **given}))
        return parts

    @property
    def distils(self) -> bool:
        """Whether a teacher's scores are learned from."""
        return bool(self.dino_weight or self.ibot_weight)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(part.steps for part in self.plan())

    @property
    def decoded_px(self) -> int:
        """Side of the squares that images are decoded to."""
        return self.image_px or max(part.global_px for part in self.plan())

    def same_run(self, other: TrainConfig) -> list[str]:
        """The fields in which another configuration would change this run's numbers."""
        return [
            name
            for name in type(self).model_fields
            if name not in RUNTIME and getattr(self, name) != getattr(other, name)
        ]


class Part(BaseModel):
    """A stage with every value filled in."""

    model_config = ConfigDict(frozen=True)

    steps: int
    global_px: int
    local_px: int
    batch: int


def read_config(path: Path) -> TrainConfig:
    """The configuration that a run saved."""
    return TrainConfig.model_validate_json(path.read_text(encoding="utf-8"))
