"""Without CC.ENABLED the plug-in is not there: supervised configs train as in stock fastreid."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import make_market
from tiny_runs import SCRIPT, YAML, config, digest, environment, pairs, run, train, weights

SUPERVISED = """\
MODEL:
  DEVICE: cpu
  META_ARCHITECTURE: Baseline
  BACKBONE: {NAME: build_osnet_backbone, DEPTH: x0_25, FEAT_DIM: 128, PRETRAIN: False}
  HEADS: {NAME: EmbeddingHead, WITH_BNNECK: True, NECK_FEAT: before, CLS_LAYER: Linear}
  LOSSES:
    NAME: ("CrossEntropyLoss", "TripletLoss")
INPUT: {SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32], REA: {ENABLED: True}, PADDING: {ENABLED: True}}
DATASETS:
  NAMES: ("Market1501",)
  TESTS: ("Market1501",)
DATALOADER: {SAMPLER_TRAIN: NaiveIdentitySampler, NUM_INSTANCE: 3, NUM_WORKERS: 0}
SOLVER: {IMS_PER_BATCH: 12, MAX_EPOCH: 2, WARMUP_ITERS: 0, CHECKPOINT_PERIOD: 1}
TEST: {EVAL_PERIOD: 1, IMS_PER_BATCH: 16}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Outputs of one supervised training with the plug-in and one with the shims alone."""
    folder = tmp_path_factory.mktemp("supervised")
    data = make_market(folder / "data")
    (folder / "supervised.yml").write_text(SUPERVISED)
    outputs = {mode: folder / mode for mode in ("plugin", "shims")}
    running = {
        mode: subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("supervised_run.py")),
                mode,
                str(output),
                str(folder / "supervised.yml"),
            ],
            env=environment(data),
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for mode, output in outputs.items()
    }
    for process in running.values():
        text = process.communicate(timeout=600)[0]
        assert process.returncode == 0, text
    return outputs


def facts(output: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((output / "facts.json").read_text())
    return found


def test_the_two_processes_differ_in_the_plug_in(runs: dict[str, Path]) -> None:
    with_plugin, without = facts(runs["plugin"]), facts(runs["shims"])
    assert with_plugin["has our keys"] and with_plugin["has our head"]
    assert not without["has our keys"] and not without["has our head"]


def test_supervised_training_is_bit_identical_with_and_without_the_plug_in(
    runs: dict[str, Path],
) -> None:
    for name in ("model_0000.pth", "model_final.pth"):
        assert digest(weights(runs["plugin"], name)) == digest(weights(runs["shims"], name))
    first, last = weights(runs["plugin"], "model_0000.pth"), weights(runs["plugin"])
    assert digest(first) != digest(last)  # it did train


def test_supervised_hooks_classes_and_results_are_the_same(runs: dict[str, Path]) -> None:
    with_plugin, without = facts(runs["plugin"]), facts(runs["shims"])
    for key in ("iterations", "classes", "hooks", "results"):
        assert with_plugin[key] == without[key]
    assert with_plugin["iterations"] == 6
    assert with_plugin["classes"] == 6
    assert "PseudoLabelHook" not in with_plugin["hooks"]  # type: ignore[operator]


def test_the_same_script_trains_a_config_and_its_label_free_twin(
    tmp_path: Path, data_root: Path
) -> None:
    """One unmodified script, one command line; the YAML alone says whether labels are used."""
    supervised = tmp_path / "supervised.yml"
    text = SUPERVISED.replace("Market1501", "SyntheticReID").replace("[64, 32]", "[32, 16]")
    supervised.write_text(
        text + "CC:\n  SYNTHETIC: {TRAIN_IDS: 8, TEST_IDS: 4, CAMERAS: 2, IMAGES_PER_CAMERA: 3,"
        " HEIGHT: 32, WIDTH: 16}\n"
    )
    found = {}
    for name, yaml, more in (
        ("supervised", supervised, ["OUTPUT_DIR", str(tmp_path / "supervised")]),
        ("label_free", YAML, pairs(tmp_path / "label_free")),
    ):
        line = [sys.executable, "-m", "fastreid_cc", str(SCRIPT), "--config-file", str(yaml), *more]
        done = run(data_root, line, timeout=600)
        assert done.returncode == 0, done.stdout
        found[name] = done.stdout
        assert (tmp_path / name / "model_final.pth").exists()
        assert "mAP" in done.stdout
    assert "loss_cls" in found["supervised"] and " clusters, " not in found["supervised"]
    assert " clusters, " in found["label_free"]
    assert "NUM_CLASSES: 0" in (tmp_path / "label_free" / "config.yaml").read_text()
    assert "fastreid_cc" not in SCRIPT.read_text()


@pytest.mark.usefixtures("plugin")
def test_stock_training_is_seeded_when_asked(tmp_path: Path) -> None:
    """CC.SEED_SUPERVISED: the same seed gives the same bytes, another seed gives others."""
    stock = (
        "CC.ENABLED",
        False,
        "CC.SEED_SUPERVISED",
        True,
        "MODEL.META_ARCHITECTURE",
        "Baseline",
        "MODEL.HEADS.NAME",
        "EmbeddingHead",
        "MODEL.LOSSES.NAME",
        '("CrossEntropyLoss",)',
        "DATALOADER.SAMPLER_TRAIN",
        "NaiveIdentitySampler",
        "DATALOADER.NUM_INSTANCE",
        2,
        "SOLVER.MAX_EPOCH",
        1,
    )
    found = []
    for i, seed in enumerate((1, 1, 2)):
        train(config(tmp_path / str(i), *stock, "CC.SEED", seed))
        found.append(digest(weights(tmp_path / str(i))))
    assert found[0] == found[1] != found[2]
