"""Registered losses inside a meta-architecture, on one feature or on several branches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config.keys import STOCK_LOSSES, build_part, loss_scale
from ...errors import BadConfig
from ...networks.ghost_batch_norm import split_batch_norm
from ...registry import LOSSES
from ...structures import Batch
from .stock_losses import stock_losses


def loss_arguments(cfg: Any) -> dict[str, Any]:
    """The registered losses a config names, their weights, and the batch-norm chunk.

    Raises:
        KeyError: for a loss that neither fastreid nor the plug-in knows (stock ignores it).
    """
    ours = [name for name in cfg.MODEL.LOSSES.NAME if name not in STOCK_LOSSES]
    return {
        "losses": {name: build_part(cfg, LOSSES, name) for name in ours},
        "scales": {name: loss_scale(cfg, name) for name in ours},
        "samples_per_bn": cfg.CC.SAMPLES_PER_BN,
    }


def refuse_memory_losses(cfg: Any) -> None:
    """Before a training with true labels: nothing fills a memory there.

    Raises:
        BadConfig: naming the losses that read a memory.
    """
    names = [name for name in cfg.MODEL.LOSSES.NAME if name in LOSSES]
    found = [name for name in names if _reads_a_memory(name)]
    if found:
        without = [name for name in LOSSES.names() if not _reads_a_memory(name)]
        raise BadConfig(
            f"MODEL.LOSSES.NAME holds {', '.join(found)}, which needs the memory that CC.ENABLED"
            " True fills; it is False. Set CC.ENABLED True to learn without labels, or choose among"
            f" {', '.join([*STOCK_LOSSES, *without])} to learn with them."
        )


def _reads_a_memory(name: str) -> bool:
    return bool(getattr(LOSSES.get(name), "needs_memory", False))


def is_statistics_only(targets: Tensor) -> bool:
    """Whether a batch has fastreid's sign of PreciseBN: every target is -1."""
    return bool((targets < 0).all())


class WithLosses:
    """Mixin of meta-architectures that compute registered losses, with labels or pseudo-labels.

    The memory is no part of the network: its rows change in number with every labelling, and a
    checkpoint has to load in stock fastreid. The pseudo-label hook hands it in by `watch`.

    Attributes:
        seen: the last training batch with detached features, for the memory's update.
    """

    registered_losses: nn.ModuleDict
    scales: dict[str, float]
    loss_kwargs: dict[str, Any]
    seen: Batch | None
    source_weight: float = 1.0

    def add_losses(
        self, losses: dict[str, nn.Module], scales: dict[str, float], samples_per_bn: int
    ) -> None:
        """Takes what `loss_arguments` gave; called at the end of the constructor."""
        split_batch_norm(self, samples_per_bn)  # type: ignore[arg-type]
        self.registered_losses = nn.ModuleDict(losses)
        self.scales, self.seen = scales, None
        self._phase: tuple[Any, dict[str, nn.Module]] = (None, losses)
        self._teacher: tuple[Any, ...] = ()  # in tuples, so that they are no part of the network
        self._taught_memory: tuple[Any, ...] = ()  # the teacher's, if it is not this network's

    def watch(self, memory: Any, losses: dict[str, nn.Module] | None = None) -> None:
        """Sets the memory, and the losses to use with it (default: those of the config)."""
        chosen = dict(self.registered_losses.items()) if losses is None else losses
        self._phase = (memory, chosen)

    def learn_from(self, teacher: nn.Module) -> None:
        """Sets the network, in evaluation mode, that soft losses learn from."""
        self._teacher = (teacher,)

    def teaching_needed(self) -> bool:
        """Whether a loss of the stage at hand learns from a teacher, and there is one."""
        needed = any(getattr(loss, "needs_teacher", False) for loss in self._phase[1].values())
        return needed and bool(self._teacher)

    def registered(
        self,
        branches: dict[str, Tensor],
        embedding: Tensor,
        targets: Tensor,
        inputs: dict[str, Any] | None,
    ) -> dict[str, Tensor]:
        """Registered losses by name, each times its SCALE.

        In a batch with sources, once for the target's images, and again, as "loss_..._source" and
        times CC.SOURCES.WEIGHT, for those of all sources.

        Args:
            branches: suffix of the loss's name -> features [B, D]. Losses without a memory see each
                branch, with weight 1 / number of branches.
            embedding: [B, D], what extraction sees; losses with a memory see it once.
            targets: i64 [B].
            inputs: the loader's batch; indices and cameras are 0 where it has none.
        Raises:
            RuntimeError: if a loss needs a memory and none is set.
        """
        inputs = inputs or {}
        keys = ("indices", "camids", *(["domains"] if "domains" in inputs else []))
        rest = [inputs.get(key, torch.zeros_like(targets)).to(targets.device) for key in keys]
        whole = Batch(embedding, targets, *rest)
        if self._phase[0] is not None:
            self.seen = replace(whole, features=embedding.detach())
        whole = replace(whole, teacher_features=inputs.get("teacher_features"))
        if whole.domains is None:
            return self._of_part("target", branches, whole)
        target, source = ~whole.is_source, whole.is_source
        found = self._of_part(
            "source", {k: v[source] for k, v in branches.items()}, whole.select(source)
        )
        found = {f"{key}_source": self.source_weight * value for key, value in found.items()}
        if self._phase[0] is None:
            return found
        return found | self._of_part(
            "target", {k: v[target] for k, v in branches.items()}, whole.select(target)
        )

    def _of_part(self, part: str, branches: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Registered losses of "target" or "source" images; `batch` holds their embedding.

        Sources meet a memory only if it has rows for them.
        """
        memory, chosen = self._phase
        if memory is not None and batch.teacher_features is not None:
            batch = replace(batch, teacher_logits=self._taught_logits(memory, batch))
        found = {}
        for name, loss in chosen.items():
            if loss.needs_memory and memory is None:
                raise RuntimeError(
                    f"Loss {name} needs a memory, and none is set: it works with CC.ENABLED True"
                    " only."
                )
            has_rows = part == "target" or not loss.needs_memory or memory.num_sources
            has_rows = has_rows or loss.reads_source_rows
            if loss.trained_on not in ("all", part) or not has_rows:
                continue
            scale = self.scales.get(name, 1.0)
            on_embedding = loss.needs_memory or (loss.needs_teacher and branches)
            seen = {"": batch.features} if on_embedding else branches
            for suffix, features in seen.items():
                value = loss(replace(batch, features=features), memory)
                found[f"loss_{loss.log_name}{suffix}"] = value * (scale / len(seen))
        return found

    @torch.no_grad()
    def _taught_logits(self, memory: Any, batch: Batch) -> Tensor:
        """The teacher's logits over its memory, f32 [B, L]."""
        taught: Any = batch.teacher_features
        own = self._taught_memory[0] if self._taught_memory else memory
        logits: Tensor = own.logits(F.normalize(taught.float()), batch)
        return logits

    def stock_pairwise(self, branches: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """fastreid's losses that need no classifier, for heads that have none; as `registered`."""
        names, weight = self.loss_kwargs["loss_names"], 1 / len(branches)
        found: dict[str, Tensor] = {}
        for suffix, features in branches.items():
            values = stock_losses(self.loss_kwargs, names, features, targets)
            found |= {f"{key}{suffix}": weight * value for key, value in values.items()}
        return found
