"""Fine-tuning by labels: a linear head, an attention head, LoRA, or the last blocks.

    python -m train.tuning.supervised --data pbc --start dinobloom-s --how lora --out runs/lora

A fifth of the set is test, groups whole; of the rest a fifth chooses the epoch. What is printed
stands beside 20-NN and a linear probe on the frozen vectors of the same start, same split.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from encoder.card import EncoderCard
from encoder.contract import RGB
from encoder.image import resize
from encoder.networks.export import save
from encoder.networks.vit import pick_device
from search.evaluation.metrics import bootstrap, confusion, scores
from search.evaluation.probe import linear_probe
from search.evaluation.splits import Fold
from search.votes.knn import nearest_label
from train.config import TrainConfig
from train.data import datasets
from train.data.datasets import Labelled
from train.dino.export import merged
from train.dino.model import Backbone, Start, add_lora, load_start
from train.evaluation.command import Settings, config_of, status_of, write_json
from train.evaluation.run import EvaluateConfig, make_folds

How = Literal["linear", "attention", "lora", "last-blocks"]
Rows = NDArray[np.int64]
FROZEN: tuple[How, ...] = ("linear", "attention")
"""What leaves the encoder as it was."""


class TuneConfig(Settings):
    """Fine-tune an encoder on a labelled set; the guide's values."""

    data: str
    """A set, as `train.evaluation.run` names it."""
    start: str
    """Encoder to start from: a registered transformer, or an exported folder."""
    how: How = "lora"
    """linear: a layer on the frozen vector; attention: a learned query over the frozen patch
    tokens; lora: low-rank adapters and a layer; last-blocks: the last blocks and a layer."""
    out: Path
    """Folder for the result: scores, the head, and with lora and last-blocks the encoder."""
    rank: int = Field(default=8, ge=1)
    """Of the adapters."""
    alpha: float = Field(default=16.0, gt=0)
    """The adapters are scaled by alpha / rank."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Before the adapters."""
    blocks: int = Field(default=2, ge=1)
    """With last-blocks: how many."""
    px: int = Field(default=224, ge=8)
    """Side of the pictures, a multiple of the encoder's patch."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the training cells."""
    patience: int = Field(default=3, ge=1)
    """Epochs without a better loss on the held-back cells after which it stops."""
    batch: int = Field(default=32, ge=2)
    """Cells of a step."""
    lr: float = Field(default=1e-3, gt=0)
    """Of the head (AdamW)."""
    backbone_lr: float = Field(default=1e-4, gt=0)
    """Of adapters and blocks."""
    weight_decay: float = Field(default=0.05, ge=0)
    """Of AdamW."""
    limit: int | None = Field(default=None, ge=10)
    """About so many cells, classes in proportion."""
    seed: int = Field(default=0, ge=0)
    """Of the split, the order and the head."""


@dataclass(frozen=True)
class Tuned:
    """What came out."""

    how: str
    epochs: int
    """Passes that were made."""
    trained: int
    """Numbers that were trained."""
    scores: dict[str, dict[str, float]]
    """Of `tuned`, `20-NN` and `linear probe` on the test cells."""
    intervals: dict[str, dict[str, tuple[float, float]]]
    """95 %, by a bootstrap over whole groups."""
    split: str
    exported: bool


class Attentive(nn.Module):
    """One learned query that looks at every token, and a layer: the guide's attention head."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        heads = next(n for n in (12, 8, 6, 4, 3, 2, 1) if dim % n == 0)
        self.look = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.layer = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """n x tokens x dim to n x classes."""
        seen, _ = self.look(self.query.expand(len(tokens), -1, -1), tokens, tokens)
        scored: Tensor = self.layer(self.norm(seen[:, 0]))
        return scored


def layer_on(dim: int, classes: int) -> nn.Sequential:
    """A linear layer on numbers of one spread: a batch norm without weights of its own before it
    (He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners", A.1)."""
    return nn.Sequential(nn.BatchNorm1d(dim, affine=False), nn.Linear(dim, classes))


class Classifier(nn.Module):
    """An encoder and a head; which of its numbers learn follows from `how`."""

    def __init__(self, start: Start, config: TuneConfig, classes: int) -> None:
        super().__init__()
        self.pooling = start.parent.pooling if start.parent else "cls"
        vit = prepared(start.vit, config)
        self.backbone = Backbone(vit)
        self.backbone.mask_token.requires_grad_(False)
        self.frozen = config.how in FROZEN
        dim = int(self.backbone.vit.embed_dim)
        self.attends = config.how == "attention"
        self.head = Attentive(dim, classes) if self.attends else layer_on(dim, classes)

    def vectors(self, x: Tensor) -> Tensor:
        """n x 3 x side x side, normalised, to the vector that the encoder serves (n x dim)."""
        return self._pooled(self.backbone(x))

    def forward(self, x: Tensor) -> Tensor:
        """n x 3 x side x side, normalised, to n x classes."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens = self.backbone(x)
        scored: Tensor = self.head(tokens if self.attends else self._pooled(tokens))
        return scored

    def _pooled(self, tokens: Tensor) -> Tensor:
        if self.pooling == "mean":
            return tokens[:, self.backbone.prefix :].mean(dim=1)
        return tokens[:, 0]

    def groups(self, config: TuneConfig) -> list[dict[str, Any]]:
        """What learns, with its step length."""
        inner = [p for p in self.backbone.parameters() if p.requires_grad]
        outer = {"params": list(self.head.parameters()), "lr": config.lr}
        return [outer, *([{"params": inner, "lr": config.backbone_lr}] if inner else [])]


def prepared(vit: nn.Module, config: TuneConfig) -> nn.Module:
    """The transformer with what learns in it switched on."""
    vit.requires_grad_(False)
    facts: Any = vit
    if config.how == "lora":
        return add_lora(vit, config.rank, config.alpha, config.dropout)
    if config.how == "last-blocks":
        for block in list(facts.blocks)[-config.blocks :]:
            block.requires_grad_(True)
        facts.norm.requires_grad_(True)
    return vit


class Cells:
    """The pictures of a set in memory, as bytes, and as batches for the network."""

    def __init__(self, labelled: Labelled, truth: Rows, start: Start, device: torch.device) -> None:
        resample = start.parent.resample if start.parent else "bicubic"
        images: list[RGB] = [resize(one, start.img_size, resample) for one in labelled.images()]
        self.pixels = torch.from_numpy(np.stack(images))
        self.truth = torch.from_numpy(truth)
        self.device = device
        self.mean = torch.tensor(start.mean, device=device).reshape(1, 3, 1, 1)
        self.std = torch.tensor(start.std, device=device).reshape(1, 3, 1, 1)

    def batch(self, rows: Rows, turn: int = 0) -> Tensor:
        """Some pictures, normalised; turned by `turn` quarters, from 4 on mirrored too."""
        x = self.pixels[torch.from_numpy(rows)].to(self.device).permute(0, 3, 1, 2).float() / 255
        x = torch.rot90(x, turn % 4, (2, 3))
        return ((x.flip(3) if turn >= 4 else x) - self.mean) / self.std

    def parts(self, rows: Rows, size: int) -> Iterator[Rows]:
        """Consecutive runs of rows."""
        for at in range(0, len(rows), size):
            yield rows[at : at + size]

    def mapped(self, of: Callable[[Tensor], Tensor], rows: Rows, size: int) -> Tensor:
        """What a function makes of pictures that are as they came."""
        with torch.no_grad():
            return torch.cat(
                [of(self.batch(part)).float().cpu() for part in self.parts(rows, size)]
            )


def fit(model: Classifier, cells: Cells, fold: Fold, held_back: Rows, config: TuneConfig) -> int:
    """Train on a fold's training cells but those held back, which choose the epoch.

    Returns:
        The passes that were made; the model is left as it was after the best of them.
    """
    train = np.setdiff1d(fold.train, held_back)
    counts = np.bincount(cells.truth[torch.from_numpy(train)].numpy())
    weight = torch.tensor(len(train) / np.maximum(counts, 1) / len(counts), dtype=torch.float32)
    optimiser = torch.optim.AdamW(model.groups(config), weight_decay=config.weight_decay)
    rng = np.random.default_rng(config.seed)
    best, kept, since, made = float("inf"), deepcopy(_learned(model)), 0, 0
    for made in range(1, config.epochs + 1):  # noqa: B007 - the caller reads it
        model.train()
        for part in cells.parts(rng.permutation(train), config.batch):
            if len(part) < 2:  # a batch norm needs two
                continue
            optimiser.zero_grad()
            scored = model(cells.batch(part, int(rng.integers(8))))
            wanted = cells.truth[torch.from_numpy(part)].to(cells.device)
            loss = functional.cross_entropy(scored, wanted, weight.to(cells.device))
            torch.autograd.backward(loss)
            optimiser.step()
        model.eval()
        scored = cells.mapped(model, held_back, config.batch)
        held_out_loss = float(
            functional.cross_entropy(scored, cells.truth[torch.from_numpy(held_back)])
        )
        since = 0 if held_out_loss < best else since + 1
        if held_out_loss < best:
            best, kept = held_out_loss, deepcopy(_learned(model))
        if since >= config.patience:
            break
    model.load_state_dict(kept, strict=False)
    return made


def _learned(model: Classifier) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    kept = {name: p.detach().clone() for name, p in named.items() if p.requires_grad}
    return kept | {f"head.{name}": b.clone() for name, b in model.head.named_buffers()}


def tune(config: TuneConfig, console: Console) -> Tuned:
    """Everything that the config names: fit, score, keep; prints the scores.

    Raises:
        EncoderError: a start that is unknown, or no vision transformer.
        BadDataset: a set that is not there.
    """
    labelled = datasets.read(config.data, config.root).at_most(config.limit, config.seed)
    names, truth = np.unique(labelled.labels, return_inverse=True)
    split, folds = make_folds(labelled, EvaluateConfig(seed=config.seed))
    fold = folds[0]
    inner = make_folds(labelled.take(fold.train, ""), EvaluateConfig(seed=config.seed))[1][0]
    device = pick_device(config.device)
    plan = TrainConfig(data=(config.root,), out=config.out, start=config.start, global_px=config.px)
    start = load_start(plan)
    torch.manual_seed(config.seed)
    cells = Cells(labelled, truth, start, device)
    size = config.batch
    frozen = Classifier(start, config.model_copy(update={"how": "linear"}), len(names))
    vectors = cells.mapped(frozen.to(device).eval().vectors, np.arange(len(truth)), size).numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = Classifier(start, config, len(names)).to(device)
    epochs = fit(model, cells, fold, fold.train[inner.test], config)
    tuned = cells.mapped(model.eval(), fold.test, size).argmax(1).numpy()
    known = truth[fold.train]
    predicted = {
        "tuned": tuned,
        "20-NN": nearest_label(vectors[fold.test], vectors[fold.train], known, len(names)),
        "linear probe": linear_probe(vectors[fold.train], known, vectors[fold.test]).predicted,
    }
    found = _scored(predicted, labelled, truth, fold, len(names))
    done = Tuned(
        how=config.how,
        epochs=epochs,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        scores=found[0],
        intervals=found[1],
        split=f"first fold of {split}",
        exported=config.how not in FROZEN,
    )
    keep(model, start, names, done, config)
    console.out(markdown(done, labelled), highlight=False)
    return done


def _scored(
    predicted: dict[str, Rows], labelled: Labelled, truth: Rows, fold: Fold, classes: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, tuple[float, float]]]]:
    wanted, groups = truth[fold.test], labelled.groups[fold.test]
    one = {name: scores(confusion(wanted, rows, classes)) for name, rows in predicted.items()}
    other = {
        name: {
            measure: (between.low, between.high)
            for measure, between in bootstrap(wanted, rows, groups, classes).items()
        }
        for name, rows in predicted.items()
    }
    return one, other


def keep(
    model: Classifier, start: Start, names: NDArray[np.str_], done: Tuned, config: TuneConfig
) -> None:
    """Write the scores, the head, and an encoder that was changed."""
    from safetensors.torch import save_file

    config.out.mkdir(parents=True, exist_ok=True)
    head = {name: tensor.detach().cpu() for name, tensor in model.head.state_dict().items()}
    classes = json.dumps([str(name) for name in names])
    save_file(head, config.out / "head.safetensors", metadata={"classes": classes})
    record = {"config": config.model_dump(mode="json"), **asdict(done)}
    write_json(config.out / "scores.json", record)
    if not done.exported:
        return
    parent = start.parent
    card = EncoderCard(
        id=config.out.resolve().name,
        architecture=start.timm_name,
        dim=int(model.backbone.vit.embed_dim),
        input_px=start.img_size,
        mean=start.mean,
        std=start.std,
        resample=parent.resample if parent else "bicubic",
        pooling="mean" if model.pooling == "mean" else "cls",
        patch_px=model.backbone.patch,
        licence=parent.licence if parent else "unknown",
        source=f"fine-tuned ({config.how}) on {config.data} from {config.start}",
        notes=f"Fine-tuned by labels of {config.data}: scores on that set flatter it.",
    )
    save(
        config.out, card, merged(model.backbone.vit), timm_name=start.timm_name,
        img_size=start.img_size, model_kwargs=start.kwargs,
    )  # fmt: skip


def markdown(done: Tuned, labelled: Labelled) -> str:
    """The scores as a table."""
    lines = [f"### {labelled.name}: {done.how}, {done.trained:,} numbers, {done.epochs} epochs", ""]
    lines += ["| method | wF1 | bAcc | accuracy |", "|---|---|---|---|"]
    for name, values in done.scores.items():
        cells = []
        for measure in ("weighted_f1", "balanced_accuracy", "accuracy"):
            low, high = done.intervals[name][measure]
            cells.append(f"{100 * values[measure]:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", f"{done.split}; 95 % bootstrap intervals over groups ({labelled.unit})."]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    config = config_of(TuneConfig, words, ())
    return status_of(lambda: tune(config, Console()))


if __name__ == "__main__":
    sys.exit(main())
