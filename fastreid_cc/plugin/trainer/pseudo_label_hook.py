"""The hook that turns fastreid's stock trainer into a label-free one: it only orchestrates.

Before an epoch: 1 extract, 2 label, 3 settle a collapse, 4 reset the memory, 5 swap the loader in.
After a step: 6 update the memory. Around it all: 7 the state a checkpoint keeps.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import torch
from fastreid.data.transforms import build_transforms
from fastreid.engine.train_loop import HookBase
from torch import Tensor

from ...labeling.collapse import recover_from_collapse
from ...labels.numbering import outliers_as_clusters
from ...networks.domain_batch_norm import init_target_from_sources
from ...parallel.collectives import gather_rows
from ...parallel.rank_zero import run_on_rank0
from ...registry import LOSSES
from ...structures import PseudoLabels
from ..compat import close_loader, swap_loader
from ..loading.collect_sources import source_centroids
from ..loading.epoch_loader import epoch_loader
from ..loading.extract import extract_features, reestimate_target_statistics
from ..loading.target_images import TargetImages
from .builders import (
    build_collapse_policy,
    build_labeler,
    build_memory,
    build_warmup_memory,
    build_warmup_transform,
    seed_globals,
)
from .checkpoint_state import check_sources, labels_of, recent_of, restore_labeler, state_of
from .run_log import log_labelling, log_results, log_setup, put_back, recent_scalars
from .stages import Stages

logger = logging.getLogger("fastreid.cc.hooks")


class PseudoLabelHook(HookBase):
    """Labels the images before an epoch, trains the epoch on the labels, keeps the memory moving.

    Args:
        cfg: fastreid config with CC.ENABLED.
        images: the loader that stands in for the stock one; holds paths and cameras.
    """

    def __init__(self, cfg: Any, images: TargetImages) -> None:
        self.cfg, self.images = cfg, images
        self.labeler = build_labeler(cfg)
        self.transform = build_transforms(cfg, is_train=True)
        self.warmup_transform = build_warmup_transform(cfg)
        self.teacher: Any = None  # TeacherHook, with CC.TEACHER.ENABLED
        self.memory: Any = None
        self.labels: Any = None  # PseudoLabels, from the first labelling on
        self._restored: Any = None  # a checkpoint's "cc" entry, when resuming
        self._scale: float | None = None
        self.stages = Stages(cfg)
        self.is_joint = images.sources is not None and cfg.CC.SOURCES.MODE == "joint"

    # ---- what the trainer calls -------------------------------------------------------------

    def before_train(self) -> None:
        """Says what the run will do; evaluates the weights it starts from, if asked to."""
        log_setup(self.cfg, self.images)
        put_back(self.trainer.storage, recent_of(self._restored or {}))
        if self.trainer.start_epoch == 0:
            self._evaluate("start")

    def _end_sources(self) -> None:
        """After the source labels alone: the target gets its batch norm; CC.EVAL_BEFORE."""
        if self.is_joint:
            for model in {id(m): m for m in (self._model(), self._labelling_model())}.values():
                if init_target_from_sources(model):
                    reestimate_target_statistics(self.cfg, model, self.images)
        self._evaluate("transfer")

    def _evaluate(self, name: str) -> None:
        """Results under `name`, with CC.EVAL_BEFORE."""
        if self.cfg.CC.EVAL_BEFORE and self.cfg.DATASETS.TESTS:
            results = self.trainer.test(self.cfg, self.trainer.model)
            self.trainer.storage.iter = self.trainer.iter
            log_results(self.trainer, name, results)

    def before_epoch(self) -> None:
        """Labels if it is time to, and swaps in the epoch's loader."""
        epoch = self.trainer.epoch
        seed_globals(self.cfg.CC.SEED, epoch)
        self.stages.restart(self.trainer)
        if self.stages.at(epoch) == "warm-up":
            self._start_warmup()
        elif self.stages.at(epoch) == "source":
            self._start_sources()
        elif self.stages.is_due(epoch):
            if self.stages.source == epoch > 0:
                self._end_sources()
            self._label(epoch)
        elif self.memory is None:
            self._restore()
        if self.memory is not None:
            self.memory.set_epoch(epoch)
        stage = self.stages.at(epoch)
        transform = self.warmup_transform if stage == "warm-up" else self.transform
        loader = epoch_loader(self.cfg, self.images, self.targets, transform, epoch, stage)
        swap_loader(self.trainer._trainer, loader)

    def before_step(self) -> None:
        """Notes the loss scale, to see whether mixed precision skips the step."""
        scaler = self.trainer.grad_scaler
        self._scale = scaler.get_scale() if scaler is not None else None

    def after_step(self) -> None:
        """Moves the memory by the batch of all processes, unless the step was skipped."""
        model = self._model()
        seen, model.seen = model.seen, None
        scaler = self.trainer.grad_scaler
        if seen is None or (scaler is not None and scaler.get_scale() < self._scale):
            return
        meets_sources = self.memory.num_sources or self.memory.follows_sources
        if seen.domains is not None and not meets_sources:
            seen = seen.select(~seen.is_source)
        batch = seen.map(gather_rows)
        if self.stages.at(self.trainer.epoch) == "labels":
            for refiner in self._observers():
                refiner.observe(batch, self.memory)
        self.memory.update(batch)

    def after_train(self) -> None:
        """Ends the loader's workers."""
        close_loader(self.trainer._trainer.data_loader)

    # ---- labelling --------------------------------------------------------------------------

    def _start_warmup(self) -> None:
        features = extract_features(self.cfg, self._labelling_model(), self.images)
        self.memory = build_warmup_memory(self.cfg, self._model())
        self._reset_memory(features, np.arange(len(features)))
        self._model().watch(self.memory, {"MemoryContrast": LOSSES.get("MemoryContrast")()})

    def _start_sources(self) -> None:
        """Source labels alone."""
        self.targets = np.full(len(self.images.paths), -1, dtype=np.int64)
        self._model().watch(None, {})

    def _label(self, epoch: int) -> None:
        """Steps 1 to 4."""
        start = time.perf_counter()
        if self.memory is None and "memory" in (self._restored or {}):
            self._restore_memory()
        features = self.memory.clustering_features() if self.memory is not None else None
        if features is None:
            features = extract_features(self.cfg, self._labelling_model(), self.images)
        features = features.cpu()
        extracted = time.perf_counter() - start
        if self.memory is None or not self.memory.persists:
            self.memory = build_memory(self.cfg, self._model())
        if self.memory.needs_labels:
            self._cluster(features, epoch)
        else:
            self.labels = PseudoLabels(np.arange(len(features)))
        self._reset_memory(features, self._training_labels())
        self._model().watch(self.memory)
        if not self.memory.needs_labels:
            logger.info(f"epoch {epoch}: every image is a class of its own; nothing to cluster")
            return
        total = time.perf_counter() - start
        log_labelling(self.trainer, self.images, self.labels, extracted=extracted, total=total)

    def _cluster(self, features: Tensor, epoch: int) -> None:
        """Steps 2 and 3: decided by the first process, the same labels or error on all."""
        result = self.labeler(features, self.images.cameras)
        policy = build_collapse_policy(self.cfg)
        found, note = run_on_rank0(
            lambda: recover_from_collapse(result, self.labeler, policy, self.labels)
        )
        self.labels = found
        if note:
            logger.warning(f"epoch {epoch}: {note}")
        for refiner in self._observers():
            refiner.start(self._training_labels())

    def _observers(self) -> list[Any]:
        """Refiners that watch the training, for the next labelling."""
        return [refiner for refiner in self.labeler.refiners if hasattr(refiner, "observe")]

    def _training_labels(self) -> np.ndarray:
        labels = self.labels.labels
        if self.cfg.CC.LABELS.OUTLIERS == "singleton":
            return outliers_as_clusters(labels)
        return labels

    def _reset_memory(self, features: Tensor, labels: np.ndarray) -> None:
        device = self._model().device
        words = np.random.SeedSequence((self.cfg.CC.SEED, self.trainer.epoch)).generate_state(1)
        generator = torch.Generator().manual_seed(int(words[0]))
        if self.is_joint and self.images.sources is not None:
            self.memory.set_source_classes(torch.from_numpy(self.images.sources.classes))
        self.memory.reset(
            features,
            torch.from_numpy(labels),
            cameras=torch.from_numpy(self.images.cameras),
            source_centroids=self._source_rows(),
            generator=generator,
        )
        self.targets = self.memory.label_space(torch.from_numpy(labels)).cpu().numpy()
        self.memory.to(device)

    def _source_rows(self) -> Tensor | None:
        """[S, D], what source classes start from; None where the memory holds none."""
        sources = self.images.sources
        if sources is None or not (self.is_joint and self.cfg.CC.SOURCES.IN_MEMORY):
            return None
        if self.memory.persists and self.memory.num_sources:
            return self.memory.rows[: self.memory.num_sources]
        return source_centroids(self.cfg, self._labelling_model(), sources)

    def _labelling_model(self) -> Any:
        """The network whose features are clustered: the one trained, or its teacher."""
        uses_teacher = self.teacher is not None and self.cfg.CC.TEACHER.USE_FOR_LABELS
        return self.teacher.model if uses_teacher else self._model()

    def _model(self) -> Any:
        model = self.trainer.model
        return getattr(model, "module", model)

    # ---- checkpoints ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint's entry "cc": labels, refiner state, the memory if it is needed again."""
        needs_memory = self.labels is not None and (
            self.memory.persists or not self.stages.is_due(self.trainer.epoch + 1)
        )
        memory = self.memory.get_state() if needs_memory else None
        state = state_of(self.images, self.labeler, self.labels, memory)
        storage = getattr(self.trainer, "storage", None)  # none if saved outside the training
        return {**state, "recent": recent_scalars(storage)} if storage else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keeps a checkpoint's entry until the first epoch needs it."""
        labels = labels_of(state, self.images.paths)
        check_sources(state, self.images)
        if labels is not None:
            restore_labeler(state, self.labeler)
            self.labels = labels
        self._restored = state

    def _restore(self) -> None:
        """Memory and targets of a run that goes on between two labellings."""
        self._restore_memory()
        labels = torch.from_numpy(self._training_labels())
        self.targets = self.memory.label_space(labels).numpy()
        self._model().watch(self.memory)

    def _restore_memory(self) -> None:
        self.memory = build_memory(self.cfg, self._model())
        self.memory.set_state(self._restored["memory"])
        self.memory.to(self._model().device)
