"""Shims of the data loaders: CPU, exceptions, ends of threads and processes, collation."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from compat_runs import build, config

pytestmark = pytest.mark.usefixtures("plugin")
needs_no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="stock runs with CUDA")


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled

    return disabled


def train_loader(data_root, tmp_path, *extra):
    from fastreid.data import build_reid_train_loader

    return build_reid_train_loader(config(data_root, tmp_path, *extra))


@pytest.fixture
def alive():
    """Counts threads and worker processes that the test left, after a moment to end in."""
    before = set(threading.enumerate())

    def count():
        gc.collect()
        for _ in range(100):
            threads = len(set(threading.enumerate()) - before)
            if threads == 0 and not multiprocessing.active_children():
                break
            time.sleep(0.05)
        return threads, len(multiprocessing.active_children())

    return count


# --- CPU -----------------------------------------------------------------------------------------


@needs_no_cuda
def test_stock_loaders_do_not_open_without_cuda(data_root, tmp_path, without):
    with without("load_without_cuda"), pytest.raises((RuntimeError, AssertionError)):
        next(iter(train_loader(data_root, tmp_path)))
    batch = next(iter(train_loader(data_root, tmp_path)))
    assert batch["images"].shape == (12, 3, 64, 32)
    assert batch["targets"].dtype == torch.int64


@needs_no_cuda
def test_a_test_loader_yields_each_image_once_per_iteration(data_root, tmp_path):
    from fastreid.data import build_reid_test_loader

    loader, num_query = build_reid_test_loader(
        config(data_root, tmp_path), dataset_name="Market1501"
    )
    for _ in range(2):  # a second iteration starts anew
        paths = [path for batch in loader for path in batch["img_paths"]]
        assert len(paths) == len(loader.dataset) == 32
        assert num_query == 8
    with pytest.raises(StopIteration):
        next(loader)


@needs_no_cuda
def test_on_the_cpu_test_loaders_have_the_workers_of_the_config(data_root, tmp_path, without):
    from fastreid.data import build as module

    def workers():
        cfg = config(data_root, tmp_path, "DATALOADER.NUM_WORKERS", 1)
        return module.build_reid_test_loader(cfg, dataset_name="Market1501")[0].num_workers

    assert workers() == 1
    with without("build_loaders_for_the_models_device"):
        assert workers() == 4


def test_the_models_device_decides_where_batches_go(data_root, tmp_path, without, monkeypatch):
    """On a machine with CUDA, as we pretend: no stream is opened for a model on the CPU."""
    streams = []

    def stream(rank):
        streams.append(rank)
        raise RuntimeError("no GPU here")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    loader = train_loader(data_root, tmp_path, "MODEL.DEVICE", "cpu")
    assert loader.on_cpu and next(iter(loader))["images"].device.type == "cpu" and streams == []
    loader = train_loader(data_root, tmp_path, "MODEL.DEVICE", "cuda")
    with pytest.raises(RuntimeError, match="no GPU here"):
        iter(loader)
    assert not loader.on_cpu and streams == [0]
    with without("build_loaders_for_the_models_device"):
        assert not train_loader(data_root, tmp_path, "MODEL.DEVICE", "cpu").on_cpu


# --- exceptions ----------------------------------------------------------------------------------


@needs_no_cuda
@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_surfaces_as_its_own_exception_with_its_path(
    data_root, tmp_path, without, workers, alive
):
    def load():
        loader = train_loader(data_root, tmp_path, "DATALOADER.NUM_WORKERS", workers)
        path, *rest = loader.dataset.img_items[0]
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(open(path, "rb").read()[:800])  # truncated
        loader.dataset.img_items = [(str(broken), *rest)] * len(loader.dataset)
        next(iter(loader))

    with pytest.raises(OSError, match="(?s)truncated.*broken.jpg"):
        load()
    if workers == 0:
        with without("name_the_image_that_failed"), pytest.raises(OSError) as stock:
            load()
        assert "broken.jpg" not in str(stock.value)
    assert alive() == (0, 0)


def failing():
    yield {"number": 1}
    raise KeyError("image 7")


def test_an_exception_in_the_background_thread_reaches_the_trainer(without, monkeypatch):
    from fastreid.data import data_utils

    monkeypatch.setattr(torch.cuda, "set_device", lambda rank: None)
    BackgroundGenerator = data_utils.BackgroundGenerator
    batches = BackgroundGenerator(failing(), 0)
    assert next(batches) == {"number": 1}
    with pytest.raises(KeyError, match="image 7"):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)

    with without("hand_over_errors"):
        threading.excepthook, hook = lambda _: None, threading.excepthook
        try:
            stock = data_utils.BackgroundGenerator(failing(), 0)
            waiting = threading.Thread(target=lambda: list(stock), daemon=True)
            waiting.start()
            waiting.join(1)
            assert waiting.is_alive()  # for ever
            stock.queue.put(None)
            waiting.join()
        finally:
            threading.excepthook = hook


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shims", [(), ("hand_over_errors",)])
def test_a_thread_that_waits_for_room_ends_when_its_loader_is_closed(
    data_root, tmp_path, monkeypatch, without, shims
):
    """As on a machine with CUDA, but for the copy to it."""
    loader_class = type(train_loader(data_root, tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda rank: "stream")
    monkeypatch.setattr(torch.cuda, "set_device", lambda rank: None)
    monkeypatch.setattr(loader_class, "preload", lambda self: None)
    with without(*shims):
        loader = loader_class(0, dataset=range(1000))
        thread = iter(loader).iter
        assert next(thread).item() == 0 and thread.is_alive()
        loader.close()
    assert not thread.is_alive() and loader.iter is None


@needs_no_cuda
def test_a_closed_loader_leaves_no_process_and_can_start_again(data_root, tmp_path, alive):
    from fastreid_cc.plugin.compat import close_loader

    loader = train_loader(data_root, tmp_path, "DATALOADER.NUM_WORKERS", 2)
    next(iter(loader))
    assert len(multiprocessing.active_children()) == 2
    close_loader(loader)
    close_loader(loader)
    assert alive() == (0, 0)
    assert next(loader)["images"].shape[0] == 12
    del loader  # so does dropping it
    assert alive() == (0, 0)


@needs_no_cuda
def test_swapping_loaders_and_training_leave_nothing_behind(data_root, tmp_path, without, alive):
    from fastreid_cc.plugin.compat import swap_loader

    several = ("DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_EPOCH", 1)
    trainer = build(data_root, tmp_path, *several)
    for _ in range(3):
        swap_loader(trainer, train_loader(data_root, tmp_path, *several))
    assert len(multiprocessing.active_children()) == 2
    trainer.train()
    assert alive() == (0, 0)
    with without("train_to_the_end"):
        trainer = build(data_root, tmp_path, *several)
        trainer.train()
        assert len(multiprocessing.active_children()) == 2  # stock's stay as long as the trainer
    del trainer
    assert alive() == (0, 0)


@needs_no_cuda
def test_later_epochs_leave_no_more_behind_than_the_first(data_root, tmp_path):
    from fastreid.engine import HookBase

    seen = []

    class Count(HookBase):
        def after_epoch(self):
            gc.collect()
            files = len(os.listdir("/proc/self/fd"))
            seen.append((threading.active_count(), len(multiprocessing.active_children()), files))

    trainer = build(data_root, tmp_path, "DATALOADER.NUM_WORKERS", 1, "SOLVER.MAX_EPOCH", 5)
    trainer.register_hooks([Count()])  # after evaluation and saving
    trainer.train()
    assert len(seen) == 5
    for first, *later in zip(*seen, strict=True):  # a pipe may close a moment late, once
        assert min(later[1:]) <= first, seen


def test_a_forked_copy_of_a_loader_leaves_the_parents_workers_alone(data_root, tmp_path):
    loader = train_loader(data_root, tmp_path, "DATALOADER.NUM_WORKERS", 1)
    next(iter(loader))
    child = multiprocessing.get_context("fork").Process(target=loader.close)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert next(loader)["images"].shape[0] == 12 and loader.iter._workers[0].is_alive()
    loader.close()


def test_precise_bn_closes_its_loader(data_root, tmp_path, without):
    precise = (
        "TEST.PRECISE_BN.ENABLED",
        True,
        "TEST.PRECISE_BN.NUM_ITER",
        2,
        "TEST.PRECISE_BN.DATASET",
        "Market1501",
        "SOLVER.MAX_EPOCH",
        1,
    )
    running = []
    for shims in (("close_precise_bn_loader",), ()):
        with without(*shims):
            trainer = build(data_root, tmp_path, *precise)
            trainer.train()
            hook = next(h for h in trainer._hooks if type(h).__name__ == "PreciseBN")
            running.append(hook._data_loader.iter is not None)
    assert running == [True, False]


# --- collation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([np.int64(3), np.int64(4)], torch.int64),
        ([np.float32(0.5), np.float32(1.5)], torch.float64),
        ([np.bool_(True), np.bool_(False)], torch.bool),
        ([np.zeros(2), np.ones(2)], torch.float64),
    ],
)
def test_numpy_values_are_collated(values, dtype, without):
    from fastreid.data import build as module

    out = module.fast_batch_collator([{"x": v} for v in values])["x"]
    assert out.dtype == dtype
    assert out.tolist() == np.stack(values).tolist()
    with without("collate_numpy_values"):
        assert module.fast_batch_collator([{"x": v} for v in values]) == {"x": None}


def test_what_stock_collates_stays_the_same(without):
    from fastreid.data import build as module

    Point = namedtuple("Point", "x")  # unknown to stock; must not vanish
    batch = [{"i": i, "f": i / 2, "s": str(i), "t": torch.full((2,), float(i))} for i in range(3)]
    ours = module.fast_batch_collator(batch)
    with without("collate_numpy_values"):
        stock = module.fast_batch_collator(batch)
    for key in batch[0]:
        same = ours[key] == stock[key]
        assert same if isinstance(same, bool) else bool(same.all())
        assert getattr(ours[key], "dtype", None) == getattr(stock[key], "dtype", None)
    assert module.fast_batch_collator([Point(1), Point(2)]) == [Point(1), Point(2)]
