"""Shims of training: each test shows stock's break first, then the mend."""

from __future__ import annotations

import json
import logging
import os

import pytest
import torch
from compat_runs import build, config, weights

pytestmark = pytest.mark.usefixtures("plugin")
ONE = ("SOLVER.MAX_EPOCH", 1)


@pytest.fixture
def without():
    from fastreid_cc.plugin.compat import disabled

    return disabled


# --- keep_flat_gradients -------------------------------------------------------------------------


def test_stock_training_is_a_silent_no_op(data_root, tmp_path, without):
    with without("keep_flat_gradients"):
        trainer = build(data_root, tmp_path, *ONE)
        before = weights(trainer)
        trainer.train()  # no error, no warning
    assert torch.equal(weights(trainer), before)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_training_equals_an_optimizer_without_the_flat_buffer(data_root, tmp_path, name):
    from fastreid.engine import DefaultTrainer
    from fastreid.solver import build_optimizer
    from fastreid.utils.events import EventStorage

    runs = []
    for contiguous in (True, False):

        class Trainer(DefaultTrainer):
            flat = contiguous

            @classmethod
            def build_optimizer(cls, cfg, model):
                return build_optimizer(cfg, model, cls.flat)

        torch.manual_seed(0)
        trainer = Trainer(config(data_root, tmp_path, *ONE, "SOLVER.OPT", name))
        before = weights(trainer)
        batch = _batch(trainer)
        with EventStorage():
            for _ in range(3):
                losses = sum(trainer.model({k: v.clone() for k, v in batch.items()}).values())
                trainer.optimizer.zero_grad()
                losses.backward()
                trainer.optimizer.step()
        runs.append(weights(trainer))
        assert not torch.equal(runs[-1], before)
    assert torch.equal(*runs)


def _batch(trainer):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 3, 64, 32), generator=generator).float()
    return {"images": images, "targets": torch.arange(8) % 6, "camids": torch.zeros(8).long()}


def test_gradients_that_left_the_flat_buffer_are_an_error(data_root, tmp_path, without):
    for shims, valid in ((("keep_flat_gradients",), True), ((), False)):
        with without(*shims):
            trainer = build(data_root, tmp_path, *ONE)
            wrapper = trainer._trainer.param_wrapper
            wrapper._param_buffer[0].grad = None
            assert wrapper.buffer_is_valid() is valid  # stock sees nothing


@pytest.mark.parametrize("name", ["LBFGS", "Nonsense"])
def test_an_impossible_optimizer_is_named_with_its_key(data_root, tmp_path, name):
    with pytest.raises(ValueError, match=rf"SOLVER.OPT='{name}'"):
        build(data_root, tmp_path, "SOLVER.OPT", name)


# --- check_schedule ------------------------------------------------------------------------------


def test_a_batch_larger_than_the_training_set_names_the_keys(data_root, tmp_path, without):
    with pytest.raises(
        ValueError, match=r"SOLVER.IMS_PER_BATCH=60 .*DATASETS.NAMES=\('Market1501'"
    ):
        build(data_root, tmp_path, "SOLVER.IMS_PER_BATCH", 60)
    with without("check_schedule"), pytest.raises(ZeroDivisionError):
        build(data_root, tmp_path, "SOLVER.IMS_PER_BATCH", 60)


def test_a_cosine_schedule_shorter_than_its_warm_up_warns_and_runs(
    data_root, tmp_path, without, caplog
):
    short = (*ONE, "SOLVER.SCHED", "CosineAnnealingLR", "SOLVER.WARMUP_ITERS", 2)
    with without("check_schedule"), pytest.raises(ZeroDivisionError):
        build(data_root, tmp_path, *short).train()
    trainer = build(data_root, tmp_path, *short)
    assert "SOLVER.WARMUP_ITERS=2" in caplog.text
    trainer.train()


# --- evaluation and ends -------------------------------------------------------------------------


def test_eval_period_zero_means_never(data_root, tmp_path, without):
    with without("evaluate_at_the_end_only"), pytest.raises(ZeroDivisionError):
        build(data_root, tmp_path, *ONE, "TEST.EVAL_PERIOD", 0).train()
    assert build(data_root, tmp_path, *ONE, "TEST.EVAL_PERIOD", 0).train() == {}
    assert (tmp_path / "model_final.pth").is_file()


def test_an_exception_in_the_last_epoch_is_not_followed_by_an_evaluation(
    data_root, tmp_path, without, monkeypatch
):
    from fastreid.engine import DefaultTrainer, train_loop

    calls = []
    monkeypatch.setattr(DefaultTrainer, "test", classmethod(lambda *_: calls.append(1) or {}))

    def fail(self):
        raise KeyError("broken step")

    monkeypatch.setattr(train_loop.SimpleTrainer, "run_step", fail)
    for shims, number in ((("evaluate_at_the_end_only",), 1), ((), 0)):
        calls.clear()
        with without(*shims), pytest.raises(KeyError, match="broken step"):
            build(data_root, tmp_path, *ONE, "TEST.EVAL_PERIOD", 2).train()
        assert len(calls) == number


def test_a_finished_job_resumes_to_nothing(data_root, tmp_path, without):
    build(data_root, tmp_path, *ONE).train()
    files = sorted(os.listdir(tmp_path))
    with without("train_to_the_end", "evaluate_at_the_end_only"):
        with pytest.raises(AttributeError):
            build(data_root, tmp_path, *ONE, resume=True).train()
    with without("train_to_the_end"), pytest.raises(AssertionError):
        build(data_root, tmp_path, *ONE, resume=True).train()
    assert build(data_root, tmp_path, *ONE, resume=True).train() == {}
    assert [f for f in sorted(os.listdir(tmp_path)) if "tfevents" not in f] == [
        f for f in files if "tfevents" not in f
    ]


def test_training_without_test_sets_saves_its_checkpoints(data_root, tmp_path, without):
    empty = ("DATASETS.TESTS", "()")
    with without("remember_the_best_metric"):
        with pytest.raises(IndexError):
            build(data_root, tmp_path, *empty).train()
    assert build(data_root, tmp_path / "b", *empty).train() == {}
    saved = {f for f in os.listdir(tmp_path / "b") if f.endswith(".pth")}
    assert saved == {"model_0000.pth", "model_final.pth"}  # no metric, so no best


def test_checkpoint_period_zero_saves_the_last_epoch_only(data_root, tmp_path, without):
    never = ("SOLVER.CHECKPOINT_PERIOD", 0, "TEST.EVAL_PERIOD", 0)
    with without("remember_the_best_metric"):
        with pytest.raises(ZeroDivisionError):
            build(data_root, tmp_path, *never).train()
    build(data_root, tmp_path, *never).train()
    assert {f for f in os.listdir(tmp_path) if f.endswith(".pth")} == {"model_final.pth"}


def test_a_resumed_job_remembers_its_best_metric(data_root, tmp_path, without, monkeypatch):
    from fastreid.engine import DefaultTrainer

    metric = [90.0]
    monkeypatch.setattr(DefaultTrainer, "test", classmethod(lambda *_: {"metric": metric[0]}))

    def best():
        return torch.load(tmp_path / "model_best.pth", weights_only=True)["metric"]

    # Epoch 0 reaches 90; epoch 1, after a resume, only 10.
    trainer = build(data_root, tmp_path, "SOLVER.MAX_EPOCH", 3)
    trainer.max_epoch = 1
    trainer.train()
    metric[0] = 10.0
    assert best() == 90.0
    build(data_root, tmp_path, "SOLVER.MAX_EPOCH", 2, resume=True).train()
    assert best() == 90.0
    with without("remember_the_best_metric"):
        build(data_root, tmp_path, "SOLVER.MAX_EPOCH", 3, resume=True).train()
    assert best() == 10.0  # stock overwrites the better model


# --- short runs, precise BN, SWA, profiler, AMP ---------------------------------------------------


def test_a_run_of_one_iteration_prints_its_metrics(data_root, tmp_path, without):
    one = (*ONE, "SOLVER.IMS_PER_BATCH", 36)
    both = "print_in_short_runs", "write_the_metrics_of_an_evaluation"
    with without(*both), pytest.raises(ZeroDivisionError):
        build(data_root, tmp_path, *one).train()
    assert build(data_root, tmp_path, *one).train()["mAP"] > 0


def test_the_last_evaluation_reaches_the_metrics_file(data_root, tmp_path, without):
    def written(folder):
        build(data_root, folder, *ONE).train()
        lines = (folder / "metrics.json").read_text().splitlines()
        return any("mAP" in json.loads(line) for line in lines)

    assert written(tmp_path / "ours")
    with without("write_the_metrics_of_an_evaluation", "write_every_scalar_on_a_whole_line"):
        assert not written(tmp_path / "stock")


def test_weights_are_averaged(data_root, tmp_path, without):
    from fastreid.engine import hooks

    def run():
        trainer = build(data_root, tmp_path, *ONE, "TEST.EVAL_PERIOD", 0)
        trainer.register_hooks([hooks.SWA(1, 1, 0.5, 0.0)])
        trainer.train()
        return trainer

    with without("average_weights"), pytest.raises(AttributeError):
        run()
    trainer = run()
    assert type(trainer.optimizer).__name__ == "SWA"
    flat = trainer._trainer.param_wrapper._param_buffer[0]
    last = trainer.optimizer.state[flat]["swa_buffer"]  # swapped: the buffer holds the last weights
    assert not torch.equal(flat, last)


def test_the_profiler_writes_a_trace(data_root, tmp_path, without):
    from fastreid.engine import hooks

    def run():
        trainer = build(data_root, tmp_path, *ONE, "TEST.EVAL_PERIOD", 0)
        trainer.register_hooks([hooks.AutogradProfiler(lambda t: t.iter == 1, str(tmp_path))])
        trainer.train()

    run()
    assert (tmp_path / "profiler-trace-iter1.json").is_file()
    if "use_cuda" not in torch.autograd.profiler.profile.__init__.__code__.co_varnames:
        with without("profile_on_any_device"), pytest.raises(TypeError):
            run()


@pytest.mark.parametrize("has_units", [True, False])
def test_mixed_precision_on_the_cpu_is_bfloat16_or_float32(
    data_root, tmp_path, without, caplog, monkeypatch, has_units
):
    from fastreid_cc.plugin.compat.required import mixed_precision as precision

    if torch.cuda.is_available():
        pytest.skip("stock runs where there is CUDA")
    amp = (*ONE, "SOLVER.AMP.ENABLED", True)
    with without("train_in_bfloat16"), pytest.raises(AssertionError, match="CUDA"):
        build(data_root, tmp_path, *amp).train()
    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: has_units)
    plain = build(data_root, tmp_path, *ONE)
    plain.train()
    caplog.set_level(logging.INFO)
    mixed = build(data_root, tmp_path, *amp)
    mixed.train()
    assert "SOLVER.AMP.ENABLED" in caplog.text
    assert torch.equal(weights(mixed), weights(plain)) is not has_units
    assert weights(mixed).dtype == torch.float32
    gap = (weights(mixed) - weights(plain)).norm() / weights(plain).norm()
    assert gap < 0.1


def test_bfloat16_is_chosen_by_key_and_has_no_loss_scale(data_root, tmp_path, monkeypatch):
    from fastreid_cc.plugin.compat.required import mixed_precision as precision

    monkeypatch.setattr(precision, "has_bfloat16_units", lambda device: False)
    amp = (*ONE, "SOLVER.AMP.ENABLED", True, "CC.AMP_DTYPE", "bfloat16")
    trainer = build(data_root, tmp_path, *amp)
    assert trainer._trainer.amp_dtype == torch.bfloat16
    assert trainer._trainer.grad_scaler is None
    trainer.train()


def test_the_fused_optimizer_takes_the_same_steps(data_root, tmp_path):
    plain = build(data_root, tmp_path, *ONE)
    fused = build(data_root, tmp_path, *ONE, "CC.FUSED_OPTIMIZER", True)
    assert fused.optimizer.param_groups[0]["fused"]
    assert not plain.optimizer.param_groups[0].get("fused")
    plain.train()
    fused.train()
    gap = (weights(fused) - weights(plain)).norm() / weights(plain).norm()
    assert gap < 0.01  # Adam turns rounding in a gradient near zero into a step of full length


def test_the_shims_are_applied_once():
    from fastreid.solver import build_optimizer

    from fastreid_cc.plugin.compat import apply_shims

    apply_shims()
    from fastreid.solver import build_optimizer as again

    assert again is build_optimizer


def test_every_shim_says_what_breaks_what_it_does_and_when_it_may_go():
    from fastreid_cc.plugin.compat import REPAIRS, REQUIRED

    for shim in (*REQUIRED, *REPAIRS):
        for part in ("Breaks:", "Does:", "Test:", "May go:"):
            assert part in " ".join((shim.__doc__ or "").split()), shim.__name__
