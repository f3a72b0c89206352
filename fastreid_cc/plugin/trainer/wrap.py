"""Ties the plug-in into fastreid's DefaultTrainer: its loader, its hooks, its checkpoint.

There is no trainer class of our own. `build_train_loader` and `build_hooks` are wrapped once; a
config without CC.ENABLED goes through to fastreid untouched.
"""

from __future__ import annotations

import contextvars
import functools
import logging
from collections.abc import Callable
from typing import Any

from fastreid.config import defaults as config_defaults
from fastreid.data import build as data_build
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.engine.defaults import DefaultTrainer
from fastreid.engine.hooks import EvalHook
from fastreid.solver import build as solver_build
from fastreid.utils import comm

from ...config import REGISTRIES, Key, add_key, all_keys, part_keys, validate
from ...losses.base import Loss
from ...parallel.collectives import set_label_timeout
from ..compat.required.mixed_precision import use_bfloat16
from ..loading.datasets import configure_from
from ..loading.target_images import ImageStream, target_images
from ..modeling.registered_losses import refuse_memory_losses
from ..seeding import seed_globals
from .closing_hook import ClosingHook
from .comparison_hook import ComparisonHook
from .consistency_hook import ConsistencyHook
from .positives_hook import PositivesHook
from .pseudo_label_hook import PseudoLabelHook
from .report_hook import ReportHook
from .source_validation_hook import SourceValidationHook
from .target_branch_hook import TargetBranchHook
from .teacher_hook import TeacherFileHook, TeacherHook

logger = logging.getLogger("fastreid.cc.engine")
_builds_hooks: contextvars.ContextVar[bool] = contextvars.ContextVar("builds_hooks", default=False)


def build_train_loader(stock: Any, cls: Any, cfg: Any) -> Any:
    """The target's images in place of the loader, while there are no labels."""
    configure_from(cfg)
    if not cfg.CC.ENABLED:
        refuse_memory_losses(cfg)
        if cfg.CC.SEED_SUPERVISED and not _builds_hooks.get():
            seed_globals(cfg.CC.SEED, comm.get_rank())
        return stock(cls, cfg)
    if _builds_hooks.get():  # fastreid asks a second time, for PreciseBN
        return ImageStream(cfg)
    validate(cfg, world_size=comm.get_world_size())
    set_label_timeout(cfg.CC.LABEL_TIMEOUT_MINUTES)
    images = target_images(cfg)
    seed_globals(cfg.CC.SEED)  # fastreid seeds from the clock; the network is built next
    return images


def build_test_loader(stock: Any, cls: Any, cfg: Any, dataset_name: str) -> Any:
    """Tells our data sets the options of the config."""
    configure_from(cfg)
    return stock(cls, cfg, dataset_name)


def test(stock: Any, cls: Any, cfg: Any, model: Any) -> Any:
    """Leaves out data sets of ours without query or gallery images; {} if no other is left."""
    names = tuple(cfg.DATASETS.TESTS)
    measured = tuple(name for name in names if _has_tests(cfg, name))
    if measured == names:
        return stock(cls, cfg, model)
    left_out = ", ".join(name for name in names if name not in measured)
    logger.info(f"{left_out} has no query or no gallery images: nothing to measure")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TESTS = measured
    found = stock(cls, cfg, model) if measured else {}
    return {measured[0]: found} if len(measured) == 1 else found


def _has_tests(cfg: Any, name: str) -> bool:
    if name not in ("UnlabeledFolder", "VehicleX") and not name.startswith("Synthetic"):
        return True
    configure_from(cfg)
    data = DATASET_REGISTRY.get(name)(root=data_build._root)
    return bool(data.query and data.gallery)


def build_hooks(stock: Any, self: Any) -> Any:
    """The stock hooks and ours around them."""
    token = _builds_hooks.set(True)
    try:
        hooks = stock(self)
    finally:
        _builds_hooks.reset(token)
    if self.cfg.SOLVER.AMP.ENABLED and self.cfg.CC.AMP_DTYPE == "bfloat16":
        use_bfloat16(self._trainer)
    teacher = TeacherHook(self.cfg) if self.cfg.CC.TEACHER.ENABLED else None
    comparison = None
    if self.cfg.CC.ENABLED:
        hook = PseudoLabelHook(self.cfg, self._trainer.data_loader, teacher)
        self.checkpointer.checkpointables["cc"] = hook
        in_step = [ConsistencyHook(hook)] if comm.get_world_size() > 1 else []
        ours: list[Any] = [hook, *in_step, PositivesHook(hook.images), TargetBranchHook(hook)]
        if hook.images.sources is not None and hook.images.sources.held_out is not None:
            ours.append(SourceValidationHook(self.cfg, hook.images.sources.held_out, teacher))
            self.checkpointer.checkpointables["cc_source_validation"] = ours[-1]
        if self.cfg.CC.COMPARE_IMAGES:
            comparison = ComparisonHook(self.cfg, hook.images, teacher)
            self.checkpointer.checkpointables["cc_comparison"] = comparison
            ours.append(comparison)
        hooks[:0] = ours
    if teacher is not None:
        self.checkpointer.checkpointables["cc_teacher"] = teacher
        for at, other in enumerate(hooks):
            if isinstance(other, EvalHook):
                evaluation = EvalHook(self.cfg.TEST.EVAL_PERIOD, teacher.evaluate)
                hooks[at : at + 1] = [TeacherFileHook(teacher), evaluation]
                break
        hooks.insert(0, teacher)
    if (self.cfg.CC.ENABLED or self.cfg.CC.REPORT) and comm.is_main_process():
        hooks += [ReportHook(self.cfg), ClosingHook(self.cfg, comparison)]
    return hooks


def build_optimizer(stock: Any, cls: Any, cfg: Any, model: Any) -> Any:
    """One kernel per step, with CC.FUSED_OPTIMIZER."""
    optimizer, wrapper = stock(cls, cfg, model)
    if cfg.CC.FUSED_OPTIMIZER and "fused" in optimizer.defaults:
        for group in (optimizer.defaults, *optimizer.param_groups):
            group["fused"], group["foreach"] = True, False
    return optimizer, wrapper


def get_default_optimizer_params(stock: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """Parameters of a loss learn at a rate of their own, `Loss.lr_factor` times the base rate."""
    groups = stock(model, *args, **kwargs)
    losses = [module for module in model.modules() if isinstance(module, Loss)]
    factors = {id(p): loss.lr_factor for loss in losses for p in loss.parameters()}
    for group in groups:
        group["lr"] *= factors.get(id(group["params"][0]), 1.0)
    return groups


def add_config_keys() -> None:
    """Adds every key to fastreid's defaults, now and for parts registered later."""

    def add(keys: dict[str, Key]) -> None:
        for name, key in keys.items():
            add_key(config_defaults._C, name, key.default)

    add(all_keys())
    for registry in REGISTRIES:
        registry.listeners.append(lambda registry, name: add(part_keys(registry, name)))


def wrap_trainer() -> None:
    """Puts the functions above around fastreid's of their names; called once."""
    for function in (build_train_loader, build_test_loader, test, build_optimizer, build_hooks):
        name = function.__name__
        setattr(DefaultTrainer, name, _around(vars(DefaultTrainer)[name], function))
    stock = solver_build.get_default_optimizer_params
    solver_build.get_default_optimizer_params = _around(stock, get_default_optimizer_params)


def _around(stock: Any, function: Callable[..., Any]) -> Any:
    if isinstance(stock, classmethod):
        return classmethod(_around(stock.__func__, function))

    @functools.wraps(stock)
    def method(*args: Any, **kwargs: Any) -> Any:
        return function(stock, *args, **kwargs)

    return method
