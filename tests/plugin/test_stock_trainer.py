"""Stock DefaultTrainer and a YAML learn without labels, and say what they found."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import build, config, metrics, plugin_at, train

from fastreid_cc.config import faults

pytestmark = pytest.mark.usefixtures("plugin")

SCALARS = {"cc/num_clusters", "cc/num_outliers", "cc/outlier_share", "cc/size_median", "cc/eps"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> dict[str, Any]:
    """One run of three labelled epochs that other tests look at."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    keep = Keep()
    logging.getLogger("fastreid").addHandler(keep)
    logging.getLogger("fastreid").setLevel(logging.DEBUG)
    output = tmp_path_factory.mktemp("finished")
    with plugin_at(data_root):
        cfg = config(output, "SOLVER.MAX_EPOCH", 3)
        trainer = build(cfg)
        first = {k: v.clone() for k, v in trainer.model.state_dict().items()}
        trainer.train()
    logging.getLogger("fastreid").removeHandler(keep)
    return {"trainer": trainer, "first": first, "output": output, "log": records, "cfg": cfg}


def test_training_moves_the_weights(finished: dict[str, Any]) -> None:
    last = finished["trainer"].model.state_dict()
    moved = [
        k
        for k, v in finished["first"].items()
        if v.is_floating_point() and not torch.equal(v, last[k])
    ]
    assert any(name.startswith("backbone.") and name.endswith("conv.weight") for name in moved)
    assert all(torch.isfinite(v).all() for v in last.values())


def test_scalars_of_every_labelling_reach_metrics_json(finished: dict[str, Any]) -> None:
    lines = [line for line in metrics(finished["output"]) if "cc/num_clusters" in line]
    assert [line["iteration"] for line in lines] == [0, 2, 4]
    assert all(line.keys() >= SCALARS and line["cc/num_clusters"] >= 2 for line in lines)


def test_the_last_evaluation_reaches_metrics_json(finished: dict[str, Any]) -> None:
    """It carried the iteration just written, and was dropped."""
    found = [line for line in metrics(finished["output"]) if "mAP" in line]
    assert [line["mAP"] for line in found] == [finished["trainer"]._last_eval_results["mAP"]]


def test_scalars_of_every_labelling_reach_tensorboard(finished: dict[str, Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished["output"]))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= SCALARS
    assert [event.step for event in events.Scalars("cc/num_clusters")] == [0, 2, 4]
    assert (
        "total_loss" in events.Tags()["scalars"]
        or "loss_memory_contrast" in (events.Tags()["scalars"])
    )


def test_each_labelling_is_one_log_line(finished: dict[str, Any]) -> None:
    lines = [
        record
        for record in finished["log"]
        if record.name.startswith("fastreid.cc.") and " clusters, " in record.getMessage()
    ]
    assert [record.getMessage().split(":")[0] for record in lines] == [
        "epoch 0",
        "epoch 1",
        "epoch 2",
    ]
    for word in ("outliers", "min/median/max", "cameras per cluster", " s"):
        assert word in lines[0].getMessage()
    assert all(record.levelno == logging.INFO for record in lines)


def test_the_true_number_of_identities_stays_out_of_the_config(finished: dict[str, Any]) -> None:
    trainer = finished["trainer"]
    assert trainer.cfg.MODEL.HEADS.NUM_CLASSES == 0
    assert not any(
        "classifier" in name or name == "heads.weight" for name in trainer.model.state_dict()
    )


def test_the_saved_config_is_blind_to_the_number_of_identities(
    tmp_path: Path, plugin: None
) -> None:
    """The script writes config.yaml: it must not change when the data set has more identities."""
    from argparse import Namespace

    from fastreid.engine import default_setup

    texts = []
    for name, identities in (("a", 8), ("b", 12)):
        cfg = config(
            tmp_path / name,
            "CC.SYNTHETIC.TRAIN_IDS",
            identities,
            "SOLVER.MAX_EPOCH",
            1,
            "CC.ITERS_PER_EPOCH",
            1,
        )
        default_setup(cfg, Namespace(config_file="", eval_only=False))
        train(cfg)
        text = (tmp_path / name / "config.yaml").read_text()
        texts.append(text.replace(f"TRAIN_IDS: {identities}", "").replace(str(tmp_path / name), ""))
    assert texts[0] == texts[1]
    assert "NUM_CLASSES: 0" in texts[0]


def test_labels_are_made_anew_before_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.trainer import pseudo_label_hook as hooks

    seen: list[np.ndarray] = []
    original = hooks.extract_features

    def spy(cfg: Any, model: Any, images: Any) -> torch.Tensor:
        features = original(cfg, model, images)
        seen.append(features.numpy().copy())
        return features

    monkeypatch.setattr(hooks, "extract_features", spy)
    train(config(tmp_path, "SOLVER.MAX_EPOCH", 3))
    assert len(seen) == 3
    assert not np.array_equal(seen[0], seen[1])  # by the model as it is now
    assert not np.array_equal(seen[1], seen[2])
    np.testing.assert_allclose(np.linalg.norm(seen[2], axis=1), 1, atol=1e-5)


def test_labels_last_for_the_stated_number_of_epochs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(config(tmp_path, "SOLVER.MAX_EPOCH", 4, "CC.LABELS.PERIOD", 2, "CC.WARMUP.EPOCHS", 1))
    lines = [r.getMessage() for r in caplog.records if "min/median/max" in r.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 3"]


def test_batches_hold_p_clusters_of_k_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.plugin.modeling.meta_arch import ClusterContrast

    seen: list[np.ndarray] = []
    original = ClusterContrast.losses

    def spy(self: Any, outputs: Any, batch: Any, step: Any) -> Any:
        seen.append(batch.targets.numpy().copy())
        return original(self, outputs, batch, step)

    monkeypatch.setattr(ClusterContrast, "losses", spy)
    train(config(tmp_path, "SOLVER.IMS_PER_BATCH", 12, "CC.ITERS_PER_EPOCH", 3))
    assert len(seen) == 6
    for targets in seen:
        assert targets.min() >= 0  # no outlier is trained on
        groups = targets.reshape(-1, 4)
        assert (groups == groups[:, :1]).all()
        assert len(np.unique(groups[:, 0])) == 3


def test_the_memory_moves_after_the_optimizer_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid_cc.memories.cluster import ClusterMemory

    order: list[str] = []
    trainer = build(config(tmp_path, "SOLVER.MAX_EPOCH", 1))
    step, update = trainer.optimizer.step, ClusterMemory.update

    def spy_step(*args: Any, **kwargs: Any) -> Any:
        order.append("step")
        return step(*args, **kwargs)

    def spy_update(self: Any, batch: Any) -> Any:
        order.append("update")
        return update(self, batch)

    monkeypatch.setattr(trainer.optimizer, "step", spy_step)
    monkeypatch.setattr(ClusterMemory, "update", spy_update)
    trainer.train()
    assert order == ["step", "update"] * 2


def test_an_unknown_loss_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MemoryContrst.*Did you mean 'MemoryContrast'.*Known:"):
        build(config(tmp_path, "MODEL.LOSSES.NAME", '("MemoryContrst",)'))


def test_all_faults_are_listed_before_an_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastreid.data.datasets import DATASET_REGISTRY

    def touched(self: Any, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("the data set was read")

    monkeypatch.setattr(DATASET_REGISTRY.get("SyntheticReID"), "__init__", touched)
    wrong = (
        "SOLVER.IMS_PER_BATCH",
        10,
        "CC.MEMORY.NAME",
        "clustr",
        "CC.CLUSTER.DBSCAN.EPS",
        2.5,
        "CC.LABELS.OUTLIERS",
        "ignore",
        "MODEL.HEADS.NUM_CLASSES",
        8,
        "MODEL.LOSSES.NAME",
        '("MemoryContrast", "CrossEntropyLoss")',
    )
    cfg = config(tmp_path, *wrong)
    with pytest.raises(ValueError) as caught:
        build(cfg)
    told = str(caught.value).splitlines()
    assert told[0] == "6 faults in the config:" and told[-1] == "  and 2 more" and len(told) == 6
    text = "\n".join(faults(cfg))
    for key in (
        "SOLVER.IMS_PER_BATCH=10",
        "CC.MEMORY.NAME='clustr'",
        "CC.CLUSTER.DBSCAN.EPS=2.5",
        "CC.LABELS.OUTLIERS='ignore'",
        "MODEL.HEADS.NUM_CLASSES=8",
        "CrossEntropyLoss",
    ):
        assert key in text
    with pytest.raises(AssertionError, match="was read"):  # the trap works
        build(config(tmp_path))


def test_hooks_of_stock_run_along(tmp_path: Path) -> None:
    """PreciseBN builds a second loader, LayerFreeze needs backbone parameters."""
    cfg = config(
        tmp_path,
        "TEST.PRECISE_BN.ENABLED",
        True,
        "TEST.PRECISE_BN.NUM_ITER",
        2,
        "TEST.PRECISE_BN.DATASET",
        "SyntheticReID",
        "MODEL.FREEZE_LAYERS",
        "['backbone.conv1']",
        "SOLVER.FREEZE_ITERS",
        2,
        "TEST.EVAL_PERIOD",
        2,
    )
    results = train(cfg)
    assert results.iter == 4
