"""Ties the plug-in into fastreid's DefaultTrainer: its loader, its hooks, its checkpoint.

There is no trainer class of our own. `build_train_loader` and `build_hooks` are wrapped once; a
config without CC.ENABLED goes through to fastreid untouched.
"""

from __future__ import annotations

import contextvars
import functools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from fastreid.config import defaults as config_defaults
from fastreid.data import build as data_build
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.transforms import build_transforms
from fastreid.engine.defaults import DefaultTrainer
from fastreid.engine.hooks import EvalHook
from fastreid.utils import comm

from ...config import REGISTRIES, Key, add_key, all_keys, part_keys, validate
from ...data.items import cameras, sort_items, truth
from ...parallel.collectives import set_label_timeout
from ..compat.required.mixed_precision import use_bfloat16
from ..loading.camera_styles import camera_style
from ..loading.collect_sources import collect_sources
from ..loading.dataset import ContrastDataset, build_loader
from ..loading.datasets import configure_from
from ..loading.target_images import TargetImages
from ..modeling.registered_losses import refuse_memory_losses
from ..seeding import seed_globals
from .consistency_hook import InStepHook
from .pseudo_label_hook import PseudoLabelHook
from .report_hook import RecordHook
from .teacher_hook import TeacherHook

logger = logging.getLogger("fastreid.cc.engine")


def collect_images(cfg: Any) -> tuple[list[tuple[str, int]], np.ndarray | None]:
    """(path, camera) of every training image, sorted by path, and identities for the log, if known.

    Cameras are numbered over all data sets, so two sets never share one.
    """
    listed: list[tuple[str, Any, str]] = []
    for name in cfg.DATASETS.NAMES:
        data = DATASET_REGISTRY.get(name)(root=data_build._root)
        listed += [(path, identity, f"{name}/{camera}") for path, identity, camera in data.train]
    items = sort_items(listed)
    return list(zip((item[0] for item in items), cameras(items).tolist(), strict=True)), truth(
        items
    )


def build_unlabeled_loader(cfg: Any) -> TargetImages:
    """The stand-in for the stock training loader; no identity of the target shapes it.

    Raises:
        ValueError: all faults of the config at once, before an image is read.
    """
    validate(cfg, world_size=comm.get_world_size())
    set_label_timeout(cfg.CC.LABEL_TIMEOUT_MINUTES)
    items, truth = collect_images(cfg)
    batch = cfg.SOLVER.IMS_PER_BATCH
    iters = cfg.CC.ITERS_PER_EPOCH or len(items) // batch
    if not items or not iters:
        raise ValueError(
            f"DATASETS.NAMES={tuple(cfg.DATASETS.NAMES)} holds {len(items)} images, fewer than one"
            f" batch of SOLVER.IMS_PER_BATCH={batch}. Lower it, or set CC.ITERS_PER_EPOCH."
        )
    logger.info(f"{len(items):,} images without labels from {', '.join(cfg.DATASETS.NAMES)}")
    loader = TargetImages(items, truth, iters * batch, collect_sources(cfg, items))
    loader.style = camera_style(cfg, loader.paths, loader.cameras)
    return loader


class _ImageStream:
    """Endless random batches without labels, for PreciseBN."""

    def __init__(self, cfg: Any) -> None:
        items, _ = collect_images(cfg)
        rows = np.random.default_rng(cfg.CC.SEED).permutation(len(items))
        batch = cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size()
        dataset = ContrastDataset(
            [path for path, _ in items],
            np.array([camera for _, camera in items]),
            np.zeros(len(items), dtype=np.int64),
            build_transforms(cfg, is_train=True),
            (cfg.CC.SEED,),
        )
        batches = [rows[i : i + batch] for i in range(0, len(rows) - batch + 1, batch)]
        self.loader = build_loader(dataset, batches, num_workers=0)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.loader


_builds_hooks: contextvars.ContextVar[bool] = contextvars.ContextVar("builds_hooks", default=False)


def _wrap_build_train_loader(original: Any) -> Any:
    @functools.wraps(original)
    def build_train_loader(cls: Any, cfg: Any) -> Any:
        configure_from(cfg)
        if not cfg.CC.ENABLED:
            refuse_memory_losses(cfg)
            if cfg.CC.SEED_SUPERVISED and not _builds_hooks.get():
                seed_globals(cfg.CC.SEED, comm.get_rank())
            return original(cls, cfg)
        if _builds_hooks.get():  # fastreid asks a second time, for PreciseBN
            return _ImageStream(cfg)
        loader = build_unlabeled_loader(cfg)
        seed_globals(cfg.CC.SEED)  # fastreid seeds from the clock; the network is built next
        return loader

    return classmethod(build_train_loader)


def _wrap_build_test_loader(original: Any) -> Any:
    @functools.wraps(original)
    def build_test_loader(cls: Any, cfg: Any, dataset_name: str) -> Any:
        configure_from(cfg)
        if dataset_name == "UnlabeledFolder" or dataset_name.startswith("Synthetic"):
            data = DATASET_REGISTRY.get(dataset_name)(root=data_build._root)
            if not data.query or not data.gallery:
                logger.info(f"{dataset_name} has no query or no gallery images: nothing to measure")
                raise NotImplementedError  # DefaultTrainer.test goes on without this set
        return original(cls, cfg, dataset_name)

    return classmethod(build_test_loader)


def _wrap_build_hooks(original: Any) -> Any:
    @functools.wraps(original)
    def build_hooks(self: Any) -> Any:
        token = _builds_hooks.set(True)
        try:
            hooks = original(self)
        finally:
            _builds_hooks.reset(token)
        if self.cfg.SOLVER.AMP.ENABLED and self.cfg.CC.AMP_DTYPE == "bfloat16":
            use_bfloat16(self._trainer)
        teacher = TeacherHook(self.cfg) if self.cfg.CC.TEACHER.ENABLED else None
        if self.cfg.CC.ENABLED:
            hook = PseudoLabelHook(self.cfg, self._trainer.data_loader, teacher)
            self.checkpointer.checkpointables["cc"] = hook
            hooks[:0] = [hook, InStepHook(hook)] if comm.get_world_size() > 1 else [hook]
        if teacher is not None:
            self.checkpointer.checkpointables["cc_teacher"] = teacher
            for at, stock in enumerate(hooks):
                if isinstance(stock, EvalHook):
                    hooks[at] = EvalHook(self.cfg.TEST.EVAL_PERIOD, teacher.evaluate)
            hooks.insert(0, teacher)
        if (self.cfg.CC.ENABLED or self.cfg.CC.REPORT) and comm.is_main_process():
            hooks.append(RecordHook(self.cfg))
        return hooks

    return build_hooks


def _wrap_build_optimizer(original: Any) -> Any:
    @functools.wraps(original)
    def build_optimizer(cls: Any, cfg: Any, model: Any) -> Any:
        optimizer, wrapper = original(cls, cfg, model)
        if cfg.CC.FUSED_OPTIMIZER and "fused" in optimizer.defaults:
            for group in (optimizer.defaults, *optimizer.param_groups):
                group["fused"], group["foreach"] = True, False
        return optimizer, wrapper

    return classmethod(build_optimizer)


def add_config_keys() -> None:
    """Adds every key to fastreid's defaults, now and for parts registered later."""

    def add(keys: dict[str, Key]) -> None:
        for name, key in keys.items():
            add_key(config_defaults._C, name, key.default)

    add(all_keys())
    for registry in REGISTRIES:
        registry.listeners.append(lambda registry, name: add(part_keys(registry, name)))


def wrap_trainer() -> None:
    """Wraps DefaultTrainer's build points; called once, by `fastreid_cc.plugin`."""
    for name, wrap in (
        ("build_train_loader", _wrap_build_train_loader),
        ("build_test_loader", _wrap_build_test_loader),
        ("build_optimizer", _wrap_build_optimizer),
    ):
        setattr(DefaultTrainer, name, wrap(getattr(DefaultTrainer, name).__func__))
    DefaultTrainer.build_hooks = _wrap_build_hooks(DefaultTrainer.build_hooks)
