"""What goes wrong for users ends with a message that says what to do, or with a stated fallback."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import build, command, config, metrics, run, train

from fastreid_cc.labeling.collapse import CollapsedError

pytestmark = pytest.mark.usefixtures("plugin")

FOLDER = (
    "DATASETS.NAMES",
    '("UnlabeledFolder",)',
    "DATASETS.TESTS",
    "()",
    "SOLVER.MAX_EPOCH",
    1,
)


def draw_folder(root: Path, people: int = 6, cameras: Sequence[str] = ("a", "b")) -> Path:
    """Images root/<camera>/<person>_<shot>.jpg, three shots each; a person is a colour."""
    generator = np.random.default_rng(0)
    for person in range(people):
        colour = generator.integers(0, 256, 3)
        for camera in cameras:
            (root / camera).mkdir(parents=True, exist_ok=True)
            for shot in range(3):
                noise = generator.integers(-30, 31, (32, 16, 3))
                picture = Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))
                picture.save(root / camera / f"{person}_{shot}.jpg")
    return root


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)


# ---- the folder -------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises((ValueError, OSError), match="CC.FOLDER.ROOT.*nowhere"):
        build(config(tmp_path / "out", *FOLDER, "CC.FOLDER.ROOT", tmp_path / "nowhere"))


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        build(config(tmp_path / "out", *FOLDER, "CC.FOLDER.ROOT", tmp_path / "empty"))


def test_fewer_images_than_a_batch_are_refused_with_the_keys(tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "few", people=1)
    with pytest.raises(ValueError, match=r"6 images.*SOLVER\.IMS_PER_BATCH=8.*CC\.ITERS_PER_EPOCH"):
        build(config(tmp_path / "out", *FOLDER, "CC.FOLDER.ROOT", root, "CC.ITERS_PER_EPOCH", 0))


def spoil(root: Path) -> list[Path]:
    """Makes one image empty and cuts another in half."""
    empty, torn = root / "a" / "0_0.jpg", root / "b" / "5_2.jpg"
    empty.write_bytes(b"")
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    return [empty, torn]


def test_a_few_unreadable_images_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = draw_folder(tmp_path / "images")
    bad = spoil(root)
    cfg = config(
        tmp_path / "out",
        *FOLDER,
        "CC.FOLDER.ROOT",
        root,
        "CC.FOLDER.CAMERA",
        "folder:0",
        "CC.FOLDER.MAX_BAD_SHARE",
        0.1,
    )
    trainer = build(cfg)
    assert len(trainer.data_loader.paths) == 34
    trainer.train()
    for path in bad:
        assert str(path) in warnings(caplog)
    assert (tmp_path / "out" / "model_final.pth").exists()


def test_many_unreadable_images_are_an_error_that_names_them(tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "images")
    bad = spoil(root)
    with pytest.raises(ValueError) as caught:
        build(config(tmp_path / "out", *FOLDER, "CC.FOLDER.ROOT", root))
    assert "CC.FOLDER.MAX_BAD_SHARE=0.05" in str(caught.value)
    assert all(path.name in str(caught.value) for path in bad)


def test_one_camera_trains_without_camera_rules(tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "images", people=8, cameras=("a",))
    trainer = train(
        config(
            tmp_path / "out",
            *FOLDER,
            "CC.FOLDER.ROOT",
            root,
            "CC.FOLDER.CAMERA",
            "folder:0",
            "CC.EXTRACT.BN",
            "camera",
            "CC.WARMUP.EPOCHS",
            1,
            "SOLVER.MAX_EPOCH",
            2,
        )
    )
    assert trainer.iter == 4


def test_no_camera_at_all_trains(tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "images", people=8)
    trainer = train(config(tmp_path / "out", *FOLDER, "CC.FOLDER.ROOT", root))
    assert trainer.iter == 2
    assert (tmp_path / "out" / "model_final.pth").exists()


def test_camera_rules_that_are_forced_survive_one_camera(tmp_path: Path) -> None:
    root = draw_folder(tmp_path / "images", people=8, cameras=("a",))
    options = (*FOLDER, "CC.FOLDER.ROOT", root, "CC.SAMPLER.CAMERA_AWARE", "on")
    assert train(config(tmp_path / "out", *options)).iter == 2


def test_no_test_set_trains_and_saves(tmp_path: Path) -> None:
    trainer = train(config(tmp_path, "DATASETS.TESTS", "()", "TEST.EVAL_PERIOD", 1))
    assert trainer.iter == 4
    assert (tmp_path / "model_final.pth").exists()


# ---- clustering -------------------------------------------------------------------------------


#: No image has two others within 0.2, most have within 0.6.
NARROW = ("CC.CLUSTER.DBSCAN.EPS", 0.2, "CC.CLUSTER.DBSCAN.MIN_SAMPLES", 3, "SOLVER.MAX_EPOCH", 1)


def test_all_outliers_stop_with_the_keys_when_eps_may_not_move(tmp_path: Path) -> None:
    with pytest.raises(CollapsedError) as caught:
        train(config(tmp_path, *NARROW, "CC.COLLAPSE.EPS_BOUND", 0.0))
    for word in ("0 cluster", "100% outliers", "eps", "CC.COLLAPSE.EPS_BOUND", "IMS_PER_BATCH"):
        assert word in str(caught.value)


def test_all_outliers_relax_eps_within_the_bound_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config(tmp_path, *NARROW, "CC.COLLAPSE.EPS_BOUND", 0.5))
    assert "0 clusters; eps moved 0.2 ->" in warnings(caplog)
    found = next(line for line in metrics(tmp_path) if "cc/eps" in line)
    assert 0.2 < found["cc/eps"] <= 0.7
    assert found["cc/num_clusters"] >= 2


def test_one_cluster_moves_eps_down_or_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide = ("CC.CLUSTER.DBSCAN.EPS", 1.0, "SOLVER.MAX_EPOCH", 1)
    with pytest.raises(CollapsedError, match="1 cluster.*lower it if one cluster holds"):
        train(config(tmp_path / "a", *wide, "CC.COLLAPSE.EPS_BOUND", 0.0))
    train(config(tmp_path / "b", *wide, "CC.COLLAPSE.EPS_BOUND", 0.9))
    assert "1 clusters; eps moved 1 ->" in warnings(caplog)


def test_a_later_collapse_keeps_the_labels_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

    original = hooks.extract_features
    calls: list[int] = []

    def extract(cfg: Any, model: Any, images: Any) -> torch.Tensor:
        calls.append(1)
        features = original(cfg, model, images)
        return (
            features
            if len(calls) == 1
            else torch.nn.functional.normalize(torch.ones_like(features))
        )

    monkeypatch.setattr(hooks, "extract_features", extract)
    trainer = train(config(tmp_path / "a"))
    assert trainer.iter == 4
    assert "CC.COLLAPSE.KEEP_PREVIOUS" in warnings(caplog)
    calls.clear()
    with pytest.raises(CollapsedError):
        train(config(tmp_path / "b", "CC.COLLAPSE.KEEP_PREVIOUS", False))


def test_fewer_clusters_than_a_batch_wants_shrink_the_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast

    sizes: list[int] = []
    original = ClusterContrast.losses

    def spy(self: Any, outputs: Any, batch: Any, step: Any) -> Any:
        sizes.append(len(batch.targets))
        return original(self, outputs, batch, step)

    monkeypatch.setattr(ClusterContrast, "losses", spy)
    many = ("SOLVER.IMS_PER_BATCH", 192, "CC.COLLAPSE.EPS_BOUND", 0.0, "SOLVER.MAX_EPOCH", 1)
    train(config(tmp_path / "a", *many))
    assert "CC.COLLAPSE.SHRINK_P" in warnings(caplog)
    assert len(sizes) == 2
    assert all(0 < size < 192 and size % 4 == 0 for size in sizes)
    with pytest.raises(CollapsedError, match="a batch wants 48"):
        train(config(tmp_path / "b", *many, "CC.COLLAPSE.SHRINK_P", False))


# ---- while training ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.timeout(600)
def test_an_image_that_vanishes_ends_the_run_with_its_path(workers: int, tmp_path: Path) -> None:
    """Deleted between two epochs: an error within the time limit, never a hang."""
    from fastreid.engine.train_loop import HookBase

    root = draw_folder(tmp_path / "copy", people=8)

    class Delete(HookBase):
        def after_epoch(self) -> None:
            for path in sorted(root.rglob("*.jpg"))[::2]:
                path.unlink()

    trainer = build(
        config(
            tmp_path / "out",
            *FOLDER,
            "CC.FOLDER.ROOT",
            root,
            "SOLVER.MAX_EPOCH",
            2,
            "DATALOADER.NUM_WORKERS",
            workers,
            "SOLVER.CHECKPOINT_PERIOD",
            1,
        )
    )
    trainer.register_hooks([Delete()])
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"Cannot read image .*copy.*\.jpg any more"):
        trainer.train()
    assert time.monotonic() - start < 300
    assert (tmp_path / "out" / "model_0000.pth").exists()  # what was learnt is there to resume


def test_features_that_are_not_finite_stop_the_run(tmp_path: Path) -> None:
    trainer = build(config(tmp_path))
    with torch.no_grad():
        next(trainer.model.backbone.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        trainer.train()


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_a_checkpoint_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.losses.memory_contrast import MemoryContrast

    original = MemoryContrast.forward
    steps: list[int] = []

    def fail_in_the_third_step(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        steps.append(1)
        loss: torch.Tensor = original(self, *args, **kwargs)
        return loss * float("nan") if len(steps) > 2 else loss

    with monkeypatch.context() as patch:
        patch.setattr(MemoryContrast, "forward", fail_in_the_third_step)
        with pytest.raises(FloatingPointError) as caught:
            train(config(tmp_path))
    for words in (
        "became infinite or NaN at iteration=2",
        "learning rate was 0.",
        "checkpoints before this step are kept",
        "SOLVER.BASE_LR",
    ):
        assert words in str(caught.value)
    assert not (tmp_path / "model_final.pth").exists()
    saved = torch.load(tmp_path / "model_0000.pth", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in saved.values())
    assert train(config(tmp_path), resume=True).start_epoch == 1
    assert (tmp_path / "model_final.pth").exists()


@pytest.mark.parametrize("kind", ["equal", "rank one"])
def test_collapsed_features_at_the_first_labelling_stop_with_the_keys(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One point, or one line: no distance tells the images apart."""
    from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

    def extract(cfg: Any, model: Any, images: Any) -> torch.Tensor:
        ones = torch.nn.functional.normalize(torch.ones(len(images.paths), 8))
        return ones if kind == "equal" else ones * torch.linspace(0.1, 1, len(ones))[:, None]

    monkeypatch.setattr(hooks, "extract_features", extract)
    with pytest.raises(CollapsedError) as caught:
        train(config(tmp_path))
    for word in ("a batch wants 2", "CC.COLLAPSE.EPS_BOUND", "CC.WARMUP.EPOCHS"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes"),
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
    ],
    ids=["numpy", "torch", "cuda"],
)
def test_out_of_memory_in_a_later_labelling_says_the_ways_out_and_resumes(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.labeling.distances.jaccard import JaccardDistance

    original = JaccardDistance.__call__
    calls: list[int] = []

    def run_out(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise error
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(JaccardDistance, "__call__", run_out)
        with pytest.raises(MemoryError, match=r"48 x 128 .*llocate|out of memory") as caught:
            train(config(tmp_path))
    assert "CC.CLUSTER.NAME=infomap" in str(caught.value)
    assert "CC.DISTANCE.JACCARD.K1" in str(caught.value)
    assert build(config(tmp_path), resume=True).start_epoch == 1


def test_the_command_line_fails_with_a_status_and_the_message(
    tmp_path: Path, data_root: Path
) -> None:
    done = run(data_root, command(tmp_path / "out", *FOLDER, "CC.FOLDER.ROOT", tmp_path / "no"))
    assert done.returncode == 2
    assert str(tmp_path / "no") in done.stdout and done.stdout.count("\n") == 2  # no dump before
