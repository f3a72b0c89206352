"""Shims of what a run writes: a full or read-only disk, half a line, order, the last figures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from compat_runs import build, config

from fastreid_cc.errors import Unwritable

pytestmark = pytest.mark.usefixtures("plugin")
FULL = Path("/dev/full")  # every write to it says: no space left on device
needs_full = pytest.mark.skipif(not FULL.exists(), reason="Linux has /dev/full")


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled

    return disabled


def lines(folder):
    return [json.loads(text) for text in (folder / "metrics.json").read_text().splitlines()]


@needs_full
def test_a_disk_full_at_a_checkpoint_keeps_the_one_before_and_resumes(data_root, tmp_path):
    never = ("TEST.EVAL_PERIOD", 0)
    trainer = build(data_root, tmp_path, *never)
    (tmp_path / ".model_final.pth.part").symlink_to(FULL)
    with pytest.raises(Unwritable) as caught:
        trainer.train()
    for words in (
        f"{tmp_path}/model_final.pth could not be written: No space left",
        " MB free on the disk",
        f"{tmp_path}/model_0000.pth is whole",
        "SOLVER.CHECKPOINT_PERIOD",
        "--resume",
    ):
        assert words in str(caught.value)
    assert sorted(p.name for p in tmp_path.glob("model*")) == ["model_0000.pth"]
    resumed = build(data_root, tmp_path, *never, resume=True)
    assert resumed.start_epoch == 1
    resumed.train()
    assert (tmp_path / "model_final.pth").is_file()


@needs_full
def test_without_the_shim_a_full_disk_leaves_half_a_checkpoint(data_root, tmp_path, without):
    with without("save_whole_checkpoints"):
        trainer = build(data_root, tmp_path, "TEST.EVAL_PERIOD", 0)
        (tmp_path / "model_final.pth").symlink_to(FULL)
        with pytest.raises((OSError, RuntimeError)):
            trainer.train()
    assert (tmp_path / "model_final.pth").is_symlink()


@needs_full
def test_a_disk_full_at_the_metrics_is_said_once(data_root, tmp_path, caplog):
    (tmp_path / "metrics.json").symlink_to(FULL)
    with pytest.raises(Unwritable, match="No space left on device.*no whole checkpoint yet"):
        build(data_root, tmp_path, "TEST.EVAL_PERIOD", 0).train()
    assert "The last metrics were not written" in caplog.text


@pytest.mark.parametrize("kind", ["file", "no folder may be made"])
def test_an_output_folder_that_cannot_be_written_is_named_before_anything(
    kind, data_root, tmp_path, without
):
    from fastreid.engine import default_setup

    folder = tmp_path / "file" if kind == "file" else Path("/proc/self/no/folder")
    (tmp_path / "file").write_text("")
    cfg = config(data_root, tmp_path / "other", "OUTPUT_DIR", folder)
    with pytest.raises(Unwritable, match=rf"OUTPUT_DIR={folder} cannot be written: .*Set it to"):
        default_setup(cfg, argparse.Namespace())
    with without("name_an_output_folder_that_cannot_be_written"):
        from fastreid.engine import default_setup

        with pytest.raises(OSError) as caught:
            default_setup(cfg, argparse.Namespace())
        assert "OUTPUT_DIR" not in str(caught.value)


def test_a_config_file_that_cannot_be_read_is_not_blamed_on_the_output_folder(data_root, tmp_path):
    from fastreid.engine import default_setup

    args = argparse.Namespace(config_file=str(tmp_path))  # a folder
    with pytest.raises(IsADirectoryError):
        default_setup(config(data_root, tmp_path / "out"), args)


def test_half_a_line_of_metrics_is_cut_off_before_the_next_is_written(tmp_path, without):
    from fastreid.utils import events

    whole, path = '{"iteration": 1, "a": 2.0}\n', tmp_path / "metrics.json"
    for shims, numbers in ((("write_every_scalar_on_a_whole_line",), [1]), ((), [1, 7])):
        path.write_text(whole + '{"iteration": 2, "a"')
        with without(*shims), events.EventStorage(7) as storage:
            writer = events.JSONWriter(str(path))
            storage.put_scalar("a", 3.0)
            writer.write()
            writer.close()
        found = path.read_text().splitlines()
        assert [
            json.loads(t)["iteration"] for t in found if t.endswith("}") and t.count("{") == 1
        ] == numbers


def test_a_scalar_of_an_iteration_that_was_written_is_not_lost(tmp_path, without):
    """As the labels' figures after an evaluation, which has the same iteration."""
    from fastreid.utils import events

    for shims, names in (
        (("write_every_scalar_on_a_whole_line",), {"mAP"}),
        ((), {"mAP", "cc/ari"}),
    ):
        path = tmp_path / f"{len(names)}.json"
        with without(*shims), events.EventStorage(7) as storage:
            writer = events.JSONWriter(str(path))
            for name in ("mAP", "cc/ari"):
                storage.put_scalar(name, 1.0, smoothing_hint=False)
                writer.write()
            writer.write()
            writer.close()
        found = [json.loads(text) for text in path.read_text().splitlines()]
        assert [entry["iteration"] for entry in found] == [7] * len(names)
        assert {key for entry in found for key in entry} == names | {"iteration"}


def test_metrics_are_written_after_the_evaluation_and_before_the_checkpoint(
    data_root, tmp_path, without
):
    from fastreid.engine import hooks

    def order():
        names = ("EvalHook", "PeriodicCheckpointer", "PeriodicWriter")
        found = build(data_root, tmp_path)._hooks
        return [name for hook in found for name in names if isinstance(hook, getattr(hooks, name))]

    assert order() == ["EvalHook", "PeriodicWriter", "PeriodicCheckpointer"]
    with without("write_metrics_before_the_checkpoint"):
        assert order() == ["EvalHook", "PeriodicCheckpointer", "PeriodicWriter"]


@pytest.mark.parametrize("period", [1, 5])
def test_a_job_killed_in_its_last_evaluation_is_measured_when_resumed(period, data_root, tmp_path):
    options = ("SOLVER.MAX_EPOCH", 1, "TEST.EVAL_PERIOD", period)
    build(data_root, tmp_path, *options).train()
    known = lines(tmp_path)
    weights = (tmp_path / "model_final.pth").read_bytes()
    kept = [json.dumps(entry) + "\n" for entry in known if "mAP" not in entry]
    (tmp_path / "metrics.json").write_text("".join(kept))
    results = build(data_root, tmp_path, *options, resume=True, seed=3).train()
    measured = [entry for entry in lines(tmp_path) if "mAP" in entry]
    assert measured == [entry for entry in known if "mAP" in entry]
    assert results["mAP"] == measured[0]["mAP"]
    assert (tmp_path / "model_final.pth").read_bytes() == weights
    build(data_root, tmp_path, *options, resume=True).train()
    assert [entry for entry in lines(tmp_path) if "mAP" in entry] == measured  # not again


def test_a_resumed_job_remembers_its_last_metric(data_root, tmp_path, without):
    def saved():
        return torch.load(tmp_path / "model_final.pth", weights_only=True)["metric"]

    build(data_root, tmp_path, "SOLVER.MAX_EPOCH", 1).train()
    first = saved()
    unmeasured = ("TEST.EVAL_PERIOD", 0)
    build(data_root, tmp_path, "SOLVER.MAX_EPOCH", 2, *unmeasured, resume=True).train()
    assert saved() == first > 0
    with without("remember_the_best_metric"):
        build(data_root, tmp_path, "SOLVER.MAX_EPOCH", 3, *unmeasured, resume=True).train()
    assert saved() == -1
