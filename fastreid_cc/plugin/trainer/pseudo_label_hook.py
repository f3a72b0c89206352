"""The hook that turns fastreid's stock trainer into a label-free one: it only orchestrates.

`before_epoch` says what an epoch trains on, `after_update` what follows a step; then come the
stages, the labelling, and what a checkpoint keeps.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch
from fastreid.data.transforms import build_transforms
from torch import Tensor

from ...data.epoch_transform import transform_at
from ...labeling.feature_refinement import refined_features
from ...labels.numbering import outliers_as_clusters
from ...memories.base import Memory
from ...networks.domain_batch_norm import init_target_from_sources
from ...parallel.collectives import gather_rows
from ...parallel.consistency import share_buffers
from ...structures import PseudoLabels
from ..compat import close_loader, swap_loader
from ..loading.collect_sources import source_centroids
from ..loading.epoch_loader import epoch_loader
from ..loading.extract import extract_features, extraction_config, reestimate_target_statistics
from ..loading.target_images import TargetImages
from ..loading.view_features import joined_with_views
from ..seeding import seed_globals, seed_words
from .builders import (
    build_labeler,
    build_linker,
    build_memory,
    build_refiners,
    build_source_memory,
    build_warmup_memory,
    build_warmup_transform,
)
from .checkpoint_state import (
    check_sources,
    labels_of,
    recent_of,
    restore_cuts,
    restore_labeler,
    state_of,
)
from .run_log import (
    doubt_first_labels,
    forget_losses,
    log_labelling,
    log_plain_labels,
    log_results,
    log_setup,
    put_back,
    recent_scalars,
    warn_of_kept_rows,
)
from .stages import Stages
from .teacher_hook import TeacherHook
from .update_hook import UpdateHook

logger = logging.getLogger("fastreid.cc.hooks")


class PseudoLabelHook(UpdateHook):
    """Labels the images before an epoch, trains the epoch on the labels, keeps the memory moving.

    Args:
        cfg: fastreid config with CC.ENABLED.
        images: the loader that stands in for the stock one; holds paths and cameras.
        teacher: the hook of the mean teacher, with CC.TEACHER.ENABLED.

    Attributes:
        memory: None before the first labelling or warm-up.
        labels: None before the first labelling.
        targets: i64 [N], row of the label space of each target image, -1 = not trained on.
    """

    memory: Memory | None = None
    labels: PseudoLabels | None = None
    targets: np.ndarray

    def __init__(self, cfg: Any, images: TargetImages, teacher: TeacherHook | None = None) -> None:
        self.cfg, self.images, self.teacher = cfg, images, teacher
        self.labeler = build_labeler(cfg)
        self.linker = build_linker(cfg, images)
        self.transform = build_transforms(cfg, is_train=True)
        self.warmup_transform = build_warmup_transform(cfg)
        self.stages = Stages(cfg)
        self.is_joint = images.sources is not None and cfg.CC.SOURCES.MODE == "joint"
        self._restored: dict[str, Any] = {}  # of a checkpoint's entry, each until it is used

    def extract_by(self, statistics: str) -> None:
        """Labels are made by these statistics from now on, see CC.EXTRACT.BN."""
        self.cfg = extraction_config(self.cfg, statistics)

    # ---- what the trainer calls -------------------------------------------------------------

    def before_train(self) -> None:
        """Says what the run will do; evaluates the weights it starts from, if asked to."""
        log_setup(self.cfg, self.images, self.stages.summary())
        put_back(self.trainer.storage, self._restored.pop("recent", {}))
        if self.trainer.start_epoch == 0:
            self._evaluate("start")

    def before_epoch(self) -> None:
        """Makes what the epoch trains on: memory and targets, then the loader."""
        epoch = self.trainer.epoch
        stage = self.stages.at(epoch)
        # 1. Seeds; where a stage begins, its learning rates and losses.
        seed_globals(self.cfg.CC.SEED, epoch)
        self.stages.restart(self.trainer)
        if epoch and stage != self.stages.at(epoch - 1):
            forget_losses(self.trainer.storage)
        # 2. Memory and targets: of single images, none, of a new labelling, or a checkpoint's.
        if stage == "warm-up":
            self._start_warmup()
        elif stage == "source":
            self._start_sources()
        elif self.stages.is_due(epoch):
            if self.stages.source == epoch > 0:
                self._end_sources()
            self._label(epoch)
        elif self.memory is None:
            self._resume_labels()
        if self.memory is not None:
            self.memory.set_epoch(max(0, epoch - self.stages.first_labels))
        # 3. The epoch's loader, in place of the last one.
        transform = self.warmup_transform if stage == "warm-up" else self.transform
        transform = transform_at(transform, epoch, self.cfg.SOLVER.MAX_EPOCH)
        loader = epoch_loader(self.cfg, self.images, self.targets, transform, epoch, stage)
        swap_loader(self.trainer._trainer, loader)

    def after_update(self) -> None:
        """Moves the memory by the last batch, of all processes; shows it to the refiners first."""
        batch = self.network.step.take_last_batch()
        if batch is None or self.memory is None:
            return
        if batch.domains is not None and not self.memory.takes_source_images:
            batch = batch.select(~batch.is_source)
        batch = batch.map(gather_rows)
        if self.stages.at(self.trainer.epoch) == "labels":
            for refiner in self.labeler.refiners:
                refiner.observe(batch, self.memory)
        self.memory.update(batch)

    def after_train(self) -> None:
        """Ends the loader's workers."""
        close_loader(self.trainer._trainer.data_loader)

    # ---- stages -----------------------------------------------------------------------------

    def _start_warmup(self) -> None:
        """Every image is a class of its own, in an instance memory if a loss reads one."""
        self.memory, self.targets = None, np.arange(len(self.images.paths))
        if any(loss.needs_memory for loss in self.network.warmup_losses.values()):
            features = extract_features(self.cfg, self._labelling_model(), self.images)
            self.memory = build_warmup_memory(self.cfg, self.network)
            self._reset_memory(self.memory, features, self.targets)
        self.network.step.start_stage(self.memory, is_warm_up=True)

    def _start_sources(self) -> None:
        """Source labels alone, and a memory of source rows if a loss learns from them already."""
        self.targets = np.full(len(self.images.paths), -1, dtype=np.int64)
        sources, losses = self.images.sources, self.network.registered_losses.values()
        if sources is not None and any(loss.learns_from_sources for loss in losses):
            if "memory" in self._restored:
                self.memory = self._restored_memory()
            elif self.memory is None:
                self.memory = build_source_memory(self.cfg, self.network, sources.classes)
        self.network.step.start_stage(self.memory, sources_only=True)

    def _end_sources(self) -> None:
        """Gives the target a batch norm of its own where domains have one; CC.EVAL_BEFORE."""
        self.adapt_target()
        self._evaluate("transfer")

    def adapt_target(self) -> None:
        """Makes the target's batch norm, of network and teacher, from the sources' and its images.

        It depends on nothing the branch held before: done once more, it changes no later byte.
        """
        for model in (self.network, *([] if self.teacher is None else [self.teacher.model])):
            if init_target_from_sources(model):
                share_buffers(model)
                reestimate_target_statistics(self.cfg, model, self.images)

    def _evaluate(self, name: str) -> None:
        """Results under `name`, with CC.EVAL_BEFORE."""
        if self.cfg.CC.EVAL_BEFORE and self.cfg.DATASETS.TESTS:
            model = self.trainer.model if self.teacher is None else self.teacher.evaluated
            results = self.trainer.test(self.cfg, model)
            self.trainer.storage.iter = self.trainer.iter
            log_results(self.trainer, name, results)

    # ---- labelling --------------------------------------------------------------------------

    def _label(self, epoch: int) -> None:
        """Makes the epoch's labels and fills the memory by them; the same on all processes."""
        start, previous = time.perf_counter(), self.labels
        if self.memory is None and "memory" in self._restored:
            self.memory = self._restored_memory()
        # 1. Features: what a memory that persists holds of the images, or extracted from them.
        features = self.memory.clustering_features() if self.memory is not None else None
        if previous is None:
            logger.info("first labels: a new installation compiles loops now, once, for a minute")
        if features is None:
            model = self._labelling_model()
            features = extract_features(self.cfg, model, self.images)
            features = joined_with_views(self.cfg, model, self.images, features)
        extracted = time.perf_counter() - start
        # 2. Labels, a collapse recovered from; none where the memory's classes are the images.
        if self.memory is None or not self.memory.outlives_labelling:
            self.memory = build_memory(self.cfg, self.network)
            warn_of_kept_rows(self.cfg, self.memory)
        if self.memory.needs_labels:
            self.labels = self._cluster(features, epoch)
        else:
            self.labels = PseudoLabels(np.arange(len(features)))
        # 3. Memory and targets.
        self._reset_memory(self.memory, features, self._training_labels(self.labels))
        self.network.step.start_stage(self.memory)
        # 4. Log.
        if not self.memory.needs_labels:
            logger.info(f"epoch {epoch}: every image is a class of its own; nothing to cluster")
            return
        total = time.perf_counter() - start
        seconds = {"extracted": extracted, "total": total}
        log_labelling(self.trainer, self.images, self.labels, previous=previous, **seconds)
        if previous is None:
            doubt_first_labels(self.trainer, features, self.labels.labels)

    def _cluster(self, features: Tensor, epoch: int) -> PseudoLabels:
        """Labels the images, and tells the refiners what is trained on from here."""
        refiners = build_refiners(self.cfg, self._labelling_model())
        if refiners and self.cfg.CC.LABELS.LOG_PLAIN:
            log_plain_labels(
                self.trainer, self.images, self.labeler, features, self.labels, self.linker
            )
        features = refined_features(features, refiners, self.labeler.neighbors)
        links = self.linker(features) if self.linker else None
        found = self.labeler(features, self.images.cameras, links=links, previous=self.labels)
        if found.note:
            logger.warning(f"epoch {epoch}: {found.note}")
        for refiner in self.labeler.refiners:
            refiner.start(self._training_labels(found))
        return found

    def _training_labels(self, found: PseudoLabels) -> np.ndarray:
        """i64 [N], what the memory is filled by: outliers as CC.LABELS.OUTLIERS says."""
        is_singleton = self.cfg.CC.LABELS.OUTLIERS == "singleton"
        return outliers_as_clusters(found.labels) if is_singleton else found.labels

    def _reset_memory(self, memory: Memory, features: Tensor, labels: np.ndarray) -> None:
        """Fills the memory, and sets the targets, by labels i64 [N]."""
        generator = torch.Generator()
        generator.manual_seed(seed_words(self.cfg.CC.SEED, self.trainer.epoch)[0])
        sources = self.images.sources
        if self.is_joint and sources is not None:
            rows = None
            if memory.keeps_source_rows and not memory.persists:
                rows = extract_features(self.cfg, self._labelling_model(), sources, sources.domains)
            memory.set_source_images(torch.from_numpy(sources.classes), rows)
        memory.reset(
            features,
            torch.from_numpy(labels),
            cameras=torch.from_numpy(self.images.cameras),
            source_centroids=self._source_centroids(memory),
            generator=generator,
        )
        self.targets = memory.label_space(torch.from_numpy(labels)).cpu().numpy()
        memory.to(self.network.device)

    def _source_centroids(self, memory: Memory) -> Tensor | None:
        """f32 [S, D], what source classes start from; None where the memory holds none."""
        sources = self.images.sources
        if sources is None or not (self.is_joint and self.cfg.CC.SOURCES.IN_MEMORY):
            return None
        kept = memory.source_centroids()
        if kept is not None:
            return kept
        return source_centroids(self.cfg, self._labelling_model(), sources)

    def _labelling_model(self) -> Any:
        """The network whose features are clustered: the one trained, or its teacher."""
        if self.teacher is not None and self.cfg.CC.TEACHER.USE_FOR_LABELS:
            return self.teacher.model
        return self.network

    # ---- checkpoints ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint's entry "cc": labels, refiner state, the memory if it is needed again."""
        memory, epoch = None, self.trainer.epoch
        if self.memory is not None and self.stages.at(epoch) != "warm-up":
            is_needed = self.memory.outlives_labelling or not self.stages.is_due(epoch + 1)
            memory = self.memory.get_state() if is_needed else None
        state = state_of(self.images, self.labeler, self.labels, memory, self.linker)
        storage = getattr(self.trainer, "storage", None)  # none if saved outside the training
        return {**state, "recent": recent_scalars(storage)} if storage else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes labels and refiner state; keeps the rest until the training needs it."""
        labels = labels_of(state, self.images.paths)
        check_sources(state, self.images)
        if labels is not None:
            restore_labeler(state, self.labeler)
            restore_cuts(state, self.linker)
            self.labels = labels
        self._restored = {"recent": recent_of(state)}
        if "memory" in state:
            self._restored["memory"] = state["memory"]

    def _resume_labels(self) -> None:
        """Memory and targets of a run that goes on between two labellings."""
        assert self.labels is not None, "a checkpoint in mid-period holds labels"
        self.memory = self._restored_memory()
        labels = torch.from_numpy(self._training_labels(self.labels))
        self.targets = self.memory.label_space(labels).numpy()
        self.network.step.start_stage(self.memory)

    def _restored_memory(self) -> Memory:
        """The checkpoint's memory; what was read of the checkpoint is let go."""
        memory = build_memory(self.cfg, self.network)
        memory.set_state(self._restored.pop("memory"))
        memory.to(self.network.device)
        return memory
