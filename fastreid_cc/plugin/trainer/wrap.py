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

from ...config import REGISTRIES, Key, add_key, all_keys, is_mined, part_keys, validate
from ...data.fit_and_pad import refuse_one_ratio
from ...losses.base import Loss
from ...networks.clip_tower import ClipTower
from ...networks.timm_network import TimmNetwork
from ...parallel.collectives import set_label_timeout
from ..compat.required.mixed_precision import use_bfloat16
from ..loading.camera_features import by_camera
from ..loading.datasets import configure_from
from ..loading.labelled_images import LabelledImages, needs_epoch_loaders
from ..loading.target_images import ImageStream, target_images
from ..modeling.registered_losses import refuse_memory_losses
from ..seeding import seed_globals
from .batch_norm_hook import BatchNormHook
from .closing_hook import ClosingHook
from .comparison_hook import ComparisonHook
from .consistency_hook import ConsistencyHook
from .figures_hook import FiguresHook
from .labelled_hook import LabelledHook, LossStageHook
from .mining_hook import MiningHook
from .positives_hook import PositivesHook
from .pseudo_label_hook import PseudoLabelHook
from .report_hook import ReportHook
from .source_validation_hook import SourceValidationHook
from .target_branch_hook import TargetBranchHook
from .teacher_hook import TeacherFileHook, TeacherHook
from .warmup import WarmupByEpoch

logger = logging.getLogger("fastreid.cc.engine")
_builds_hooks: contextvars.ContextVar[bool] = contextvars.ContextVar("builds_hooks", default=False)


def build_train_loader(stock: Any, cls: Any, cfg: Any) -> Any:
    """The target's images in place of the loader, while there are no labels."""
    configure_from(cfg)
    if not cfg.CC.ENABLED:
        return _labelled_loader(stock, cls, cfg)
    if _builds_hooks.get():  # fastreid asks a second time, for PreciseBN
        return ImageStream(cfg)
    validate(cfg, world_size=comm.get_world_size())
    set_label_timeout(cfg.CC.LABEL_TIMEOUT_MINUTES)
    images = target_images(cfg)
    seed_globals(cfg.CC.SEED)  # fastreid seeds from the clock; the network is built next
    return images


def _labelled_loader(stock: Any, cls: Any, cfg: Any) -> Any:
    """fastreid's own loader, or images in its place whose loaders the epochs' hook makes."""
    refuse_memory_losses(cfg)
    if _builds_hooks.get():
        return stock(cls, cfg)
    validate(cfg, world_size=comm.get_world_size())
    if cfg.CC.SEED_SUPERVISED:
        seed_globals(cfg.CC.SEED, comm.get_rank())
    found: Any = LabelledImages(cfg) if needs_epoch_loaders(cfg) else stock(cls, cfg)
    if cfg.INPUT.KEEP_RATIO:
        is_ours = isinstance(found, LabelledImages)
        paths = found.paths if is_ours else [item[0] for item in found.dataset.img_items]
        refuse_one_ratio(paths, cfg.INPUT.SIZE_TRAIN)
    return found


def build_test_loader(stock: Any, cls: Any, cfg: Any, dataset_name: str) -> Any:
    """Tells our data sets the options of the config."""
    configure_from(cfg)
    return stock(cls, cfg, dataset_name)


def test(stock: Any, cls: Any, cfg: Any, model: Any) -> Any:
    """Leaves out data sets of ours without query or gallery images; {} if no other is left."""
    names = tuple(cfg.DATASETS.TESTS)
    measured = tuple(name for name in names if _has_tests(cfg, name))
    if measured == names:
        return _measure(stock, cls, cfg, model)
    left_out = ", ".join(name for name in names if name not in measured)
    logger.info(f"{left_out} has no query or no gallery images: nothing to measure")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TESTS = measured
    found = _measure(stock, cls, cfg, model) if measured else {}
    return {measured[0]: found} if len(measured) == 1 else found


def _measure(stock: Any, cls: Any, cfg: Any, model: Any) -> Any:
    """Stock evaluation; with TEST.BN camera of features extracted by camera, set by set."""
    if cfg.TEST.BN == "running":
        return stock(cls, cfg, model)
    found: dict[str, Any] = {}
    configure_from(cfg)
    for name in cfg.DATASETS.TESTS:
        one = cfg.clone()
        one.defrost()
        one.DATASETS.TESTS = (name,)
        data = DATASET_REGISTRY.get(name)(root=data_build._root)
        found[name] = stock(cls, one, by_camera(cfg, model, data))
    return found if len(found) > 1 else next(iter(found.values()), {})


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
        logs = [PositivesHook(hook.images), FiguresHook(hook)]
        ours: list[Any] = [hook, *in_step, *logs, TargetBranchHook(hook)]
        if self.cfg.CC.TRAIN_BN in ("frozen", "auto"):
            ours.insert(0, BatchNormHook(self.cfg, hook))
            self.checkpointer.checkpointables["cc_batch_norm"] = ours[0]
        if hook.images.sources is not None and hook.images.sources.held_out is not None:
            ours.append(SourceValidationHook(self.cfg, hook.images.sources.held_out, teacher))
            self.checkpointer.checkpointables["cc_source_validation"] = ours[-1]
        if self.cfg.CC.COMPARE_IMAGES:
            comparison = ComparisonHook(self.cfg, hook, teacher)
            self.checkpointer.checkpointables["cc_comparison"] = comparison
            ours.append(comparison)
        hooks[:0] = ours
    labelled: Any = hook if self.cfg.CC.ENABLED else None
    if isinstance(self._trainer.data_loader, LabelledImages):
        labelled = LabelledHook(self.cfg, self._trainer.data_loader)
        hooks.insert(0, labelled)
    if is_mined(self.cfg):
        self.checkpointer.checkpointables["cc_mining"] = miner = MiningHook(self.cfg, labelled)
        hooks.insert(1, miner)
    if self.cfg.CC.LOSS_STAGES:
        hooks.insert(0, LossStageHook(self.cfg))
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


def build_lr_scheduler(stock: Any, cls: Any, cfg: Any, optimizer: Any, iters: int) -> Any:
    """With SOLVER.WARMUP_BY_EPOCH, a warm-up that moves at the beginning of an epoch."""
    found = stock(cls, cfg, optimizer, iters)
    if cfg.SOLVER.WARMUP_BY_EPOCH and "warmup_sched" in found:
        found["warmup_sched"] = WarmupByEpoch(found["warmup_sched"], iters)
    return found


def get_default_optimizer_params(stock: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """Factors of the base rate: a loss's for its parameters, a transformer's by layer."""
    groups = stock(model, *args, **kwargs)
    factors: dict[int, float] = {}
    for module in model.modules():
        if isinstance(module, Loss):
            factors |= dict.fromkeys(map(id, module.parameters()), module.lr_factor)
        elif isinstance(module, (ClipTower, TimmNetwork)):
            own = dict(module.named_parameters())
            factors |= {id(own[name]): factor for name, factor in module.lr_factors().items()}
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
    ours = (build_train_loader, build_test_loader, test, build_optimizer, build_lr_scheduler)
    for function in (*ours, build_hooks):
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
