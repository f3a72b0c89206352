"""The hook that trains epochs on mined triplets, with true labels or pseudo-labels."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from fastreid.engine.train_loop import HookBase

from ...config import from_config, is_mined
from ...data.epoch_transform import transform_at
from ...data.items import fingerprint
from ...data.triplet_mining import TripletMining, draw_any, draw_queries, mine
from ...parallel.collectives import rank, unwrapped, world_size
from ...parallel.rank_zero import run_on_rank0
from ..compat import swap_loader
from ..loading.dataset import ContrastDataset, build_loader
from ..loading.extract import extract_features
from ..loading.target_images import ImageList
from .checkpoint_state import ADVICE, OtherImages, torn
from .stages import Stages

logger = logging.getLogger("fastreid.cc.hooks")

#: Variance of a pool's unit features, at most 1, below which a warning says that they collapsed.
ALIKE = 0.05


class Labelled(Protocol):
    """The hook whose images and labels are mined: of true labels or of pseudo-labels.

    Attributes:
        images: has `paths` of N images, `cameras` i64 [N] and `style`, see `TargetImages`.
        targets: i64 [N] of the epoch, below 0 = not trained on.
        transform: of training images.
    """

    images: Any
    targets: np.ndarray
    transform: Any


class Round(NamedTuple):
    """What was mined: at which step, and i64 [period * triplets, 3] rows in the order of use."""

    start: int
    triplets: np.ndarray


class MiningHook(HookBase):
    """Gives the epochs in which a loss reads roles batches of mined triplets.

    A round begins with such an epoch, with labels made anew, and CC.MINING.PERIOD steps after the
    last: a random pool is embedded in eval mode, so batch norm's statistics stay, the first process
    draws the triplets, and the next steps are trained on them. Queries are drawn without repetition
    as long as there are enough. A checkpoint within a round carries what is left of it.

    Args:
        cfg: fastreid config.
        labelled: whose labels; its own loader works in all other epochs.
    """

    def __init__(self, cfg: Any, labelled: Labelled) -> None:
        self.cfg, self.labelled = cfg, labelled
        self.options = from_config(cfg, TripletMining)
        self.stages = Stages(cfg) if cfg.CC.ENABLED else None
        self.round: Round | None = None
        self.is_on = self._begins_epoch = self._warned = False
        self._gaps: list[float] = []
        self._variance = 1.0

    def before_epoch(self) -> None:
        """Says whether the epoch is one of mined triplets."""
        epoch = self.trainer.epoch
        self.is_on = is_mined(self.cfg, epoch)
        if self.stages is not None and self.stages.at(epoch) != "labels":
            self.is_on = False
        if not self.is_on or (self.stages is not None and self.stages.is_due(epoch)):
            self.round = None
        self._begins_epoch, self._gaps = True, []

    def before_step(self) -> None:
        """Mines where a round begins; its loader, up to the end of the epoch."""
        if not self.is_on:
            return
        step = self.trainer.iter
        is_due = self.round is None or step >= self.round.start + self.options.period
        if is_due:
            self.round = Round(step, self._mine(step))
        if is_due or self._begins_epoch:
            swap_loader(self.trainer._trainer, self._loader(step))
        self._begins_epoch = False

    def after_epoch(self) -> None:
        """Logs how hard the epoch's mined triplets were when they were drawn."""
        if self._gaps:
            gap = float(np.mean(self._gaps))
            self.trainer.storage.put_scalars(**{"cc/mined_gap": gap}, smoothing_hint=False)
            logger.info(
                f"epoch {self.trainer.epoch}: {len(self._gaps)} rounds of mined triplets, squared"
                f" distance to the positive less that to the negative {gap:.3f} on average"
            )
            if self._variance < ALIKE and not self._warned:
                self._warned = True
                logger.warning(
                    f"features have become alike: their variance is {self._variance:.3f} of at most"
                    " 1. Hard triplets pull everything together as long as a network knows little:"
                    " let classification go first, or longer (CC.LOSS_STAGES)."
                )

    def _mine(self, step: int) -> np.ndarray:
        """Rows i64 [period * triplets, 3] of a round; the same on all processes."""
        options, images = self.options, self.labelled.images
        generator = np.random.default_rng((self.cfg.CC.SEED, step, 0, 3))
        rows = np.flatnonzero(self.labelled.targets >= 0)
        count = options.period * options.triplets
        if not options.top:
            labels = self.labelled.targets[rows]
            return rows[draw_any(labels, draw_queries(labels, count, generator), generator)]
        rows = np.sort(generator.choice(rows, min(options.pool, len(rows)), replace=False))
        labels = self.labelled.targets[rows]
        queries = draw_queries(labels, count, generator)
        pool = ImageList([images.paths[row] for row in rows], images.cameras[rows])
        features = extract_features(self.cfg, unwrapped(self.trainer.model), pool)
        skip = options.skip if self.cfg.CC.ENABLED else 0.0
        chosen = run_on_rank0(
            lambda: mine(features, labels, queries, top=options.top, skip=skip, generator=generator)
        )
        q, p, n = features[torch.from_numpy(chosen).to(features.device)].unbind(1)
        self._gaps.append(float(2 * (q * (n - p)).sum(1).mean()))
        self._variance = float(1 - features.mean(0).square().sum())
        if len(self._gaps) == 1:
            fit = len(np.unique(queries))
            sizes = np.bincount(labels)
            logger.info(
                f"step {step}: mined {count} triplets of {fit:,} queries in {len(rows):,} images;"
                f" {int((sizes == 1).sum()):,} of {int((sizes > 0).sum()):,} identities have one"
                " image there, so no positive"
            )
        return rows[chosen]

    def _loader(self, step: int) -> Any:
        """This process's share of the round's batches, from a step to the end of round or epoch."""
        assert self.round is not None
        options, epoch, hook = self.options, self.trainer.epoch, self.labelled
        epoch_end = (epoch + 1) * self.trainer.iters_per_epoch
        steps = np.arange(step, min(self.round.start + options.period, epoch_end))
        share = options.triplets // world_size()
        own = rank() * share + np.arange(share)  # this process's triplets of a step
        roles = (3 * own[:, None] + np.arange(3)).ravel()
        by_step = self.round.triplets.reshape(options.period, options.triplets, 3)
        rows = by_step[steps - self.round.start][:, own].reshape(len(steps), -1)
        dataset = ContrastDataset(
            hook.images.paths,
            hook.images.cameras,
            hook.targets,
            transform_at(hook.transform, epoch, self.cfg.SOLVER.MAX_EPOCH),
            (self.cfg.CC.SEED, epoch),
            style=hook.images.style,
            two_views=self.cfg.CC.TEACHER.ENABLED and self.cfg.CC.TEACHER.OWN_VIEW,
        )
        places = [s * 3 * options.triplets + roles for s in steps]
        workers = self.cfg.DATALOADER.NUM_WORKERS
        return build_loader(dataset, list(rows), workers, places, [roles] * len(steps))

    # ---- checkpoints ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """A checkpoint's entry "cc_mining": the round under way, if there is one."""
        if self.round is None:
            return {}
        return {
            "start": self.round.start,
            "triplets": torch.from_numpy(self.round.triplets),
            "images": fingerprint(self.labelled.images.paths),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the round of a checkpoint; with other CC.MINING.* a new one begins.

        Raises:
            UnreadableFile: if the entry is not what this version writes.
            OtherImages: if its rows are those of other images.
        """
        if not state:
            return
        start, triplets = state.get("start"), state.get("triplets")
        paths = self.labelled.images.paths
        if not isinstance(start, int) or not isinstance(triplets, torch.Tensor):
            raise torn("triplets are none of this version")
        if state.get("images") != fingerprint(paths):
            raise OtherImages(
                f"The checkpoint's mined triplets are of other images than the {len(paths):,} of"
                f" DATASETS.NAMES: files were added, removed or renamed. {ADVICE}"
            )
        wanted = (self.options.period * self.options.triplets, 3)
        if triplets.dtype == torch.int64 and tuple(triplets.shape) == wanted:
            self.round = Round(start, triplets.numpy())
