"""Shims of checkpoints: whole or not at all, tensors only, the newest whole one is resumed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from compat_runs import build, weights

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled
    from fastreid_cc.plugin.compat.repairs import checkpoints

    checkpoints._warn.cache_clear()
    return disabled


def checkpointer(folder):
    from fastreid.utils.checkpoint import Checkpointer

    torch.manual_seed(0)
    return Checkpointer(torch.nn.Linear(2, 2), str(folder))


def test_a_checkpoint_written_halfway_leaves_the_old_one(tmp_path, without, monkeypatch):
    """The process is killed while torch.save writes: here, an exception in its place."""
    ours, stock = tmp_path / "ours", tmp_path / "stock"
    whole = torch.save

    def killed(data, stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    for folder, shims in ((ours, ()), (stock, ("save_whole_checkpoints",))):
        folder.mkdir()
        with without(*shims):
            keeper = checkpointer(folder)
            keeper.save("model", epoch=1)
            monkeypatch.setattr(torch, "save", killed)
            with pytest.raises(KeyboardInterrupt):
                keeper.save("model", epoch=2)
            monkeypatch.setattr(torch, "save", whole)
    assert checkpointer(ours).load(str(ours / "model.pth"))["epoch"] == 1
    with pytest.raises(RuntimeError, match="damaged"):
        checkpointer(stock).load(str(stock / "model.pth"))


def test_a_tag_written_halfway_leaves_the_old_one(tmp_path, without, monkeypatch):
    keeper = checkpointer(tmp_path)
    keeper.save("model_a")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        keeper.tag_last_checkpoint("model_b.pth")
    assert keeper.get_checkpoint_file() == str(tmp_path / "model_a.pth")


def test_saved_files_are_those_of_stock(tmp_path, without):
    keeper = checkpointer(tmp_path)
    keeper.save("ours", epoch=1, metric=2.5)
    with without("save_whole_checkpoints"):
        keeper.save("stock", epoch=1, metric=2.5)
    ours, stock = (torch.load(tmp_path / f"{n}.pth", weights_only=True) for n in ("ours", "stock"))
    assert list(ours) == list(stock) == ["model", "epoch", "metric"]
    assert all(torch.equal(ours["model"][k], stock["model"][k]) for k in stock["model"])
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "ours.pth", "stock.pth"]


def test_arrays_and_numbers_of_numpy_load_and_objects_do_not(tmp_path, without):
    state = {k: v.numpy() for k, v in torch.nn.Linear(2, 2).state_dict().items()}
    torch.save({"model": state, "metric": np.float64(3.5)}, tmp_path / "numpy.pth")
    assert checkpointer(tmp_path).load(str(tmp_path / "numpy.pth"))["metric"] == 3.5
    torch.save({"model": {}, "args": argparse.Namespace(a=1)}, tmp_path / "object.pth")
    with pytest.raises(RuntimeError, match=r"object.pth holds more than tensors.*Namespace"):
        checkpointer(tmp_path).load(str(tmp_path / "object.pth"))
    with without("load_tensors_only"), pytest.raises(Exception, match="weights_only"):
        checkpointer(tmp_path).load(str(tmp_path / "numpy.pth"))


@pytest.mark.parametrize("damage", ["torn", "empty", "gone", "garbage", "tag", "no tag"])
def test_resume_falls_back_to_the_newest_whole_checkpoint(tmp_path, without, caplog, damage):
    keeper = checkpointer(tmp_path)
    for epoch in range(3):
        keeper.save(f"model_{epoch:04d}", epoch=epoch)
        os.utime(tmp_path / f"model_{epoch:04d}.pth", (epoch, epoch))
    newest = tmp_path / "model_0002.pth"
    want = 1
    if damage == "torn":
        newest.write_bytes(newest.read_bytes()[:-30])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "gone":
        newest.unlink()
    elif damage == "garbage":  # in the weights: torch loads them, wrong
        state = torch.load(newest, weights_only=True)["model"]["weight"]
        data = newest.read_bytes()
        newest.write_bytes(data.replace(state.numpy().tobytes(), b"\0" * 16))
    elif damage == "tag":
        (tmp_path / "last_checkpoint").write_text("")
        want = 2
    else:
        (tmp_path / "last_checkpoint").unlink()
        want = 2
    with without("resume_from_the_newest_whole_checkpoint"):
        keeper = checkpointer(tmp_path)
        if damage == "garbage":
            keeper.resume_or_load("", resume=True)
            assert not keeper.model.weight.any()
        elif damage == "no tag":
            assert keeper.resume_or_load("", resume=True) == {}
        else:
            with pytest.raises((RuntimeError, AssertionError, OSError)):
                keeper.resume_or_load("", resume=True)
    assert checkpointer(tmp_path).resume_or_load("", resume=True)["epoch"] == want
    assert "damaged" in caplog.text or "has no last_checkpoint: using" in caplog.text


@pytest.mark.parametrize("name", ["mine.pth", "model_final.pth", "model_best.pth"])
def test_without_a_tag_only_numbered_checkpoints_say_that_a_job_was_here(name, tmp_path):
    """Somebody's weights in OUTPUT_DIR are not resumed."""
    checkpointer(tmp_path).save(name.removesuffix(".pth"), epoch=7)
    (tmp_path / "last_checkpoint").unlink()
    assert checkpointer(tmp_path).resume_or_load("", resume=True) == {}


def test_without_any_whole_checkpoint_a_job_starts_anew(tmp_path):
    keeper = checkpointer(tmp_path)
    keeper.save("model_0000", epoch=0)
    (tmp_path / "model_0000.pth").write_bytes(b"PK")
    assert not keeper.has_checkpoint()
    assert keeper.resume_or_load("", resume=True) == {}


def test_a_resumed_training_goes_on_where_the_checkpoint_ends(data_root, tmp_path):
    trainer = build(data_root, tmp_path, "SOLVER.MAX_EPOCH", 1)
    trainer.train()
    resumed = build(data_root, tmp_path, "SOLVER.MAX_EPOCH", 3, resume=True, seed=5)
    assert resumed.start_epoch == 1
    assert torch.equal(weights(resumed), weights(trainer))
    resumed.train()
    assert not torch.equal(weights(resumed), weights(trainer))
