from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder import registry
from train.config import TrainConfig, read_config
from train.data.source import DataError
from train.dino import loop, step
from train.dino.checkpoint import CheckpointError, load, save
from train.dino.loop import Collapsed, train
from train.dino.model import load_start
from train.dino.progress import read_log
from train.dino.run import build_centers, prepare
from train.dino.step import losses, pieces
from train.smoke import KINDS, SETTINGS, draw_cell, draw_cells


@pytest.fixture(name="cells", scope="module")
def _cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    draw_cells(folder, 8, 40, seed=1)
    return folder


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    assert sys.float_info.min / 2 > 0  # training leaves the process as it found it


def settings(cells: Path, out: Path, **changes) -> TrainConfig:
    base = SETTINGS | {
        "data": (cells,), "out": out, "steps": 6, "batch": 8, "embed_dim": 16, "warmup_steps": 2,
        "checkpoint_every": 100, "watch_every": 3, "log_every": 2, "tensorboard": False,
        "force": True,
    }  # fmt: skip
    return TrainConfig.model_validate(base | changes)


def weights(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(out / "weights.safetensors")


class Killed(BaseException):
    """Stands for kill -9: nothing in the loop catches it."""


def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch, config: TrainConfig) -> None:
    real = loop.one_step

    def step(run):
        if run.step == steps:
            raise Killed
        return real(run)

    monkeypatch.setattr(loop, "one_step", step)
    with pytest.raises(Killed):
        train(config)
    monkeypatch.setattr(loop, "one_step", real)


@pytest.mark.parametrize(
    "changes",
    [
        {"hold": "memory"},
        {"hold": "disk", "local_crops": 0, "centering": "moving_average", "batch": 6},
        {"tuning": "lora", "pixel_ops": 2, "separate_ibot_head": True, "micro_batch": 4},
        {
            "steps": 3, "stages": [{"steps": 3, "global_px": 48, "batch": 4}],
            "head_warmup_steps": 2, "koleo_weight": 0.0,
        },
    ],
    ids=["plain", "from disk without local crops", "lora", "two resolutions"],
)  # fmt: skip
def test_a_killed_and_resumed_run_equals_an_undisturbed_one_bit_for_bit(
    cells, tmp_path, monkeypatch, changes
):
    quiet = settings(cells, tmp_path / "quiet", **changes)
    train(quiet)
    rough = settings(cells, tmp_path / "rough", checkpoint_every=2, **changes)
    killed_after(5, monkeypatch, rough)
    assert load(tmp_path / "rough")["step"] == 4
    train(rough)
    one, two = weights(tmp_path / "quiet"), weights(tmp_path / "rough")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    first, second = (
        [{k: v for k, v in row.items() if k not in ("images_per_s", "data_share", "minutes_left")}
         for row in read_log(tmp_path / name)] for name in ("quiet", "rough")
    )  # fmt: skip
    assert first == second
    a, b = load(tmp_path / "quiet"), load(tmp_path / "rough")
    for part in ("student", "teacher", "centers"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])


def test_training_changes_the_weights_and_lowers_the_loss_on_a_tiny_set(cells, tmp_path):
    config = settings(cells, tmp_path, steps=40, watch_every=40, log_every=10, lr=1e-2, batch=16)
    before = load_start(config).vit.state_dict()["blocks.0.attn.qkv.weight"].clone()
    train(config)
    assert not torch.equal(weights(tmp_path)["blocks.0.attn.qkv.weight"], before)
    rows = read_log(tmp_path, "step")
    assert rows[-1]["dino_global"] < rows[0]["dino_global"]


def test_the_folder_is_complete_and_loads_as_an_encoder(cells, tmp_path):
    outcome = train(settings(cells, tmp_path / "tiny"))
    assert outcome.finished
    assert outcome.exported
    for name in ("config.json", "log.jsonl", "weights.safetensors", "card.json"):
        assert (tmp_path / "tiny" / name).is_file()
    encoder = registry.load(str(tmp_path / "tiny"), device="cpu")
    assert (encoder.card.id, encoder.card.dim, encoder.card.patch_px) == ("tiny", 16, 8)
    rng = np.random.default_rng(0)
    vectors = encoder.embed([draw_cell(kind, 40, rng) for kind in KINDS])
    assert vectors.shape == (4, 16)


def test_an_exported_encoder_is_the_teacher_bit_for_bit_also_with_lora(cells, tmp_path):
    from train.dino.export import merged

    config = settings(cells, tmp_path, tuning="lora")
    train(config)
    run = prepare(config)
    run.feed.close()
    state = merged(run.teacher.backbone.vit)
    saved = weights(tmp_path)
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[name], saved[name]) for name in state)


def test_an_export_can_be_trained_further(cells, tmp_path):
    train(settings(cells, tmp_path / "first"))
    train(settings(cells, tmp_path / "second", start=str(tmp_path / "first"), head_warmup_steps=6))
    one, two = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(one[name], two[name]) for name in one)  # only heads were trained
    card = json.loads((tmp_path / "second" / "card.json").read_text())
    assert card["source"] == "trained from first"


def test_max_minutes_stops_at_a_checkpoint_that_can_be_resumed(cells, tmp_path):
    config = settings(cells, tmp_path, max_minutes=1e-9)
    outcome = train(config)
    assert not outcome.finished
    assert not (tmp_path / "card.json").exists()
    assert load(tmp_path)["step"] == outcome.step
    assert train(config.model_copy(update={"max_minutes": None})).exported


def test_another_setting_in_the_same_folder_is_refused(cells, tmp_path):
    train(settings(cells, tmp_path))
    with pytest.raises(CheckpointError, match="other lr"):
        train(settings(cells, tmp_path, lr=0.5))


def test_a_checkpoint_that_a_full_disk_refuses_is_named_and_the_one_before_is_kept(
    tmp_path,
):
    save(tmp_path, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt could not be written .* GB of"):
            save(tmp_path, {"step": 2, "rows": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load(tmp_path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_what_a_killed_run_left_half_written_goes_with_its_next_checkpoint(tmp_path):
    for name in (".checkpoint.pt.0a1b2c3d.part", ".best.pt.0a1b2c3d.part"):
        (tmp_path / name).write_bytes(b"half")
    save(tmp_path, {"step": 1})
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"checkpoint.pt", ".best.pt.0a1b2c3d.part"}


def test_a_damaged_checkpoint_is_named(cells, tmp_path):
    train(settings(cells, tmp_path))
    (tmp_path / "checkpoint.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt cannot be read"):
        train(settings(cells, tmp_path))


def test_a_collapsed_run_stops_says_so_and_exports_nothing(cells, tmp_path):
    config = settings(
        cells, tmp_path, steps=12, collapse_rank=1.0, collapse_cosine=1e-6, force=False, lr=5.0
    )
    with pytest.raises(Collapsed, match="stopped at step"):
        train(config)
    assert not (tmp_path / "card.json").exists()


def test_an_encoder_worse_than_its_parent_is_not_exported(cells, tmp_path, monkeypatch):
    from train.dino import watch

    scores = iter([(0.9, 0.9), (0.5, 0.5), (0.6, 0.6)])
    monkeypatch.setattr(watch, "knn_probe", lambda *a: next(scores))
    outcome = train(settings(cells, tmp_path, probe=cells, force=False))
    assert not outcome.exported
    assert "0.6000" in outcome.refusal
    assert not (tmp_path / "card.json").exists()


def test_corrupt_images_are_counted_in_the_log(tmp_path):
    draw_cells(tmp_path / "cells", 4, 40, seed=1)
    (tmp_path / "cells" / "eosinophil" / "0002.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"0002\.jpg"):
        train(settings(tmp_path / "cells", tmp_path / "strict", max_corrupt=0.0))
    train(settings(tmp_path / "cells", tmp_path / "run", max_corrupt=0.1))
    (line,) = read_log(tmp_path / "run", "run")
    assert (line["images"], line["corrupt"]) == (16, 1)


@pytest.mark.parametrize(
    ("batch", "world", "most"),
    [(960, 1, 152), (448, 1, 152), (208, 8, 152), (384, 1, 256), (7, 3, 2), (5, 2, None)],
)
def test_any_batch_is_cut_into_micro_batches_that_fit(batch, world, most):
    parts = [pieces(batch, world, rank, most) for rank in range(world)]
    drawn = [at for own in parts for start, count in own for at in range(start, start + count)]
    assert sorted(drawn) == list(range(batch))
    assert len({len(own) for own in parts}) == 1  # Sinkhorn-Knopp pools them
    sizes = [count for own in parts for _, count in own]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= (most or batch)


@pytest.mark.parametrize("changes", [{"batch": 7, "micro_batch": 3}, {"batch": 1}])
def test_a_batch_that_nothing_divides_trains(cells, tmp_path, changes):
    assert train(settings(cells, tmp_path, steps=2, watch_every=2, **changes)).exported


TINY = {
    "start": "random", "embed_dim": 16, "depth": 1, "heads": 2, "global_px": 28, "threads": 1,
    "prototypes": 32, "head_hidden": 16, "head_bottleneck": 8, "ibot_bottleneck": 8,
    "device": "cpu", "tensorboard": False, "cut": ("whole",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "batch", "passes"),
    [("dinobloom", 960, 7), ("dinobloom", 448, 3), ("dinobloom", 208, 2), ("reddino", 384, 2)],
)
def test_a_step_of_the_papers_larger_networks_takes_their_whole_batch(
    cells, tmp_path, preset, batch, passes
):
    run = prepare(TrainConfig.model_validate(
        TINY | {"preset": preset, "batch": batch, "data": (cells,), "out": tmp_path}
    ))  # fmt: skip
    run.step = 1  # the learning rate of the first step is 0
    before = run.student.backbone.vit.cls_token.detach().clone()
    decoded = []
    drawn_at = run.feed.batch
    run.feed.batch = lambda at, count: decoded.append(count) or drawn_at(at, count)
    parts, drawn = step.one_step(run)
    run.feed.close()
    assert (drawn, sum(decoded), len(decoded)) == (batch, batch, passes)
    assert all(torch.isfinite(one) for one in parts.values())
    assert not torch.equal(run.student.backbone.vit.cls_token, before)


def test_micro_batches_weigh_every_image_equally(cells, tmp_path):
    # Each loss is a mean over images: with targets that do not depend on the others, the parts
    # of 4 and 3 images must add up to the mean over 7.
    run = prepare(settings(
        cells, tmp_path, batch=7, micro_batch=4, centering="moving_average", koleo_weight=0.0,
        ibot_weight=0.0, local_crops=0, drop_path=0.0, clip=0.0, precision="fp32",
    ))  # fmt: skip
    run.feed.close()
    values = []

    def known(run, pixels, guide, part, now, generator):
        value = run.student.backbone.mask_token.sum() * 0 + float(len(pixels))
        values.append(len(pixels))
        return value, {"loss": value.detach()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "forward", known)
        patch.setattr(step, "clip", lambda run: torch.zeros(()))
        losses_, drawn = step.one_step(run)
    assert (sorted(values), drawn) == ([3, 4], 7)
    assert float(losses_["loss"]) == pytest.approx((3 * 3 + 4 * 4) / 7)


def test_blocks_computed_again_give_the_same_weights(cells, tmp_path):
    for name in ("off", "on"):
        train(settings(cells, tmp_path / name, steps=2, watch_every=2, recompute=name))
    one, two = weights(tmp_path / "off"), weights(tmp_path / "on")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_losses_add_up_with_the_published_scales(cells, tmp_path):
    gen = torch.Generator().manual_seed(0)
    student = {k: torch.randn(8, 5, generator=gen) for k in ("cls", "dino", "local")}
    teacher = {"dino": torch.randn(8, 5, generator=gen)}
    parts = {}
    for crops, scale in ((0, None), (0, 0.5), (2, None)):
        config = settings(cells, tmp_path, ibot_weight=0.0, local_crops=crops)
        config = config.model_copy(update={"dino_global_scale": scale})
        given = student if crops else {k: v for k, v in student.items() if k != "local"}
        value, named = losses(config, build_centers(config), given, teacher, None, 0.07)
        parts[crops, scale] = float(named["dino_global"])
        total = named["dino_global"] + named.get("dino_local", 0) + 0.1 * named["koleo"]
        assert float(value) == pytest.approx(float(total), rel=1e-5)
    assert parts[0, 0.5] == pytest.approx(parts[0, None] / 2)
    assert parts[2, None] == pytest.approx(parts[0, None] * 2 / 6)


TWO_PROCESSES = """
import os, sys
from pathlib import Path
import torch, torch.distributed as dist
from train.config import read_config
from train.dino.loop import train
from train.dino.run import prepare
from train.dino.sharding import whole

for path in sys.argv[1:]:
    config = read_config(Path(path))
    train(config)
    again = prepare(config)  # goes on from the checkpoint
    again.feed.close()
    state = whole({name: p.detach() for name, p in again.student.named_parameters()})
    if dist.get_rank() == 0:
        torch.save({"student": state, "step": again.step}, config.out / "again.pt")
    if not config.shard:
        own = torch.cat([p.flatten() for p in again.student.parameters()]).detach()
        other = own.clone()
        dist.broadcast(other, 0)
        assert torch.equal(own, other)
dist.barrier()
dist.destroy_process_group()
os._exit(0)  # threads of gloo that end late would abort the interpreter's own end
"""


def test_two_processes_train_the_same_weights_whether_each_holds_all_of_them_or_a_part(
    cells, tmp_path
):
    records = []
    for name in ("copies", "parts"):
        config = settings(
            cells, tmp_path / name, steps=2, watch_every=2, log_every=1, batch=7, micro_batch=2,
            shard=name == "parts", recompute="on" if name == "parts" else "off",
        )  # fmt: skip
        records.append(tmp_path / f"{name}.json")
        records[-1].write_text(config.model_dump_json())
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(tmp_path / "two.py"), *map(str, records)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    copies, parts = weights(tmp_path / "copies"), weights(tmp_path / "parts")
    assert copies.keys() == parts.keys()
    assert all(torch.allclose(copies[name], parts[name], atol=1e-5) for name in copies)
    kept = load(tmp_path / "parts")
    again = torch.load(tmp_path / "parts" / "again.pt")
    assert again["step"] == kept["step"] == 2
    assert all(torch.equal(kept["student"][name], one) for name, one in again["student"].items())
    alone = prepare(read_config(records[1]))  # one process goes on with what two left
    alone.feed.close()
    moments = alone.optimizer.state_dict()["state"]
    assert alone.step == 2
    assert all(torch.equal(moments[at]["exp_avg"], one["exp_avg"])
               for at, one in kept["optimizer"]["state"].items())  # fmt: skip


def test_smoke_trains_is_killed_resumes_exports_loads_and_evaluates(tmp_path):
    from train.smoke import smoke

    report = smoke(tmp_path)
    assert 0 < report.killed_at < report.steps
    assert report.accuracy > 0.5


GUIDED = {"dino_weight": 0.0, "ibot_weight": 0.0, "koleo_weight": 0.0, "contrast_weight": 0.5}


@pytest.fixture(name="guide")
def _guide(tmp_path: Path) -> Path:
    rows = np.random.default_rng(0).normal(size=(8 * len(KINDS), 5)).astype(np.float32)
    np.save(tmp_path / "guide.npy", rows)
    return tmp_path / "guide.npy"


def test_an_encoder_can_learn_from_a_guide_and_pairs_of_views_without_a_teacher(
    cells, tmp_path, guide
):
    out = tmp_path / "out"
    train(settings(cells, out, **GUIDED, guide=guide, guide_weight=4.0, steps=60, lr=3e-3))

    steps = [line for line in read_log(out) if line["kind"] == "step"]
    assert "dino_global" not in steps[-1]
    assert steps[-1]["guide"] < 0.9 * steps[0]["guide"]
    encoder = registry.load(str(out), device="cpu")
    assert (encoder.card.pooling, encoder.card.dim) == ("mean", 5)


def test_the_vector_is_what_the_guides_head_says_of_the_mean_patch(cells, tmp_path, guide):
    config = settings(cells, tmp_path / "out", **GUIDED, guide=guide)
    train(config)
    image = draw_cell("eosinophil", 40, np.random.default_rng(5))
    encoder = registry.load(str(tmp_path / "out"), device="cpu")
    vectors, patches = encoder.tokens([image])
    mean = patches[0].reshape(-1, 5).mean(axis=0)
    assert vectors[0] @ mean / np.linalg.norm(mean) == pytest.approx(1.0, abs=1e-3)


def test_a_guided_run_that_is_killed_and_resumed_equals_an_undisturbed_one(
    cells, tmp_path, guide, monkeypatch
):
    def config(name: str) -> TrainConfig:
        return settings(cells, tmp_path / name, **GUIDED, guide=guide, checkpoint_every=2)

    train(config("whole"))
    killed_after(3, monkeypatch, config("killed"))
    train(config("killed"))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("rows", [3, 8 * len(KINDS)])
def test_a_guide_that_does_not_fit_the_images_is_refused(cells, tmp_path, rows):
    table = np.full((rows, 5), 1.0 if rows == 3 else np.nan, np.float32)
    np.save(tmp_path / "guide.npy", table)
    with pytest.raises(DataError, match=r"a row for each of 32 images"):
        train(settings(cells, tmp_path / "out", **GUIDED, guide=tmp_path / "guide.npy"))


def test_a_guide_that_is_no_table_is_named(cells, tmp_path):
    (tmp_path / "guide.npy").write_text("not numbers")
    with pytest.raises(DataError, match=r"guide .*guide\.npy is no \.npy file"):
        train(settings(cells, tmp_path / "out", **GUIDED, guide=tmp_path / "guide.npy"))
