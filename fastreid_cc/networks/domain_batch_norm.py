"""Batch norm with a branch for each domain, by converting the layers a model has.

A converted layer keeps the target's branch under its own names (`weight`, `running_mean`, ...) and
holds the sources' branches beside it, in `sources`. So a checkpoint is one of the plain network,
with entries more that stock fastreid skips, and a plain checkpoint loads into every branch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SOURCES, GATES = "sources", "gates"


class Domains:
    """Which domain each image of the forward at hand is of; one object for all layers of a model.

    Args:
        names: for messages, the target first.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._sizes: list[int] | None = None  # images per domain; None = all of the target
        self._order: Tensor | None = None  # positions by domain; None = in that order already
        self._inverse: Tensor | None = None

    @contextmanager
    def of(self, domains: Tensor | None, *, complete: bool = False) -> Iterator[None]:
        """Within it, layers take the images to be of `domains`, i64 [B]; None = the target.

        Raises:
            ValueError: if `complete` and a domain has no image.
        """
        before = self._sizes, self._order, self._inverse
        self._sizes, self._order, self._inverse = None, None, None
        if domains is not None:
            self._read(domains, complete)
        try:
            yield
        finally:
            self._sizes, self._order, self._inverse = before

    def _read(self, domains: Tensor, complete: bool) -> None:
        on_host = domains.cpu()
        self._sizes = torch.bincount(on_host, minlength=len(self.names)).tolist()
        if len(self._sizes) > len(self.names):
            raise ValueError(f"domain {len(self._sizes) - 1} of {len(self.names)}: {self.names}.")
        missing = [n for n, size in zip(self.names, self._sizes, strict=True) if not size]
        if complete and missing:
            raise ValueError(
                f"A training step without images of {', '.join(missing)}: batch norm of a domain"
                " needs its images in every step (SOLVER.IMS_PER_BATCH,"
                " CC.SOURCES.IMS_PER_BATCH)."
            )
        if bool((on_host[1:] < on_host[:-1]).any()):
            self._order = torch.argsort(domains, stable=True)
            self._inverse = torch.argsort(self._order)

    def split(self, x: Tensor) -> list[tuple[int, Tensor]]:
        """(domain, its images) for every domain that has any."""
        if self._sizes is None:
            return [(0, x)]
        ordered = x if self._order is None else x[self._order]
        parts = ordered.split(self._sizes)
        return [(domain, part) for domain, part in enumerate(parts) if len(part)]

    def join(self, parts: list[Tensor]) -> Tensor:
        """The parts of `split`, changed, in the order the images had."""
        if len(parts) == 1:
            return parts[0]
        joined = torch.cat(parts)
        return joined if self._inverse is None else joined[self._inverse]


class _DomainForward:
    """Forward of a batch norm that gives each domain's images to that domain's branch."""

    domains: Domains
    sources: nn.ModuleList
    gates: nn.ParameterList | None
    gate_scale: float

    def forward(self, x: Tensor) -> Tensor:
        return self.domains.join([self._branch(d, part) for d, part in self.domains.split(x)])

    def _branch(self, domain: int, x: Tensor) -> Tensor:
        y = self.sources[domain - 1](x) if domain else super().forward(x)  # type: ignore[misc]
        if self.gates is None:
            return y
        return y * gate(x, self.gates[domain], self.gate_scale).to(y.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            for i in range(len(self.sources)):
                if prefix + name in state_dict:
                    key = f"{prefix}{SOURCES}.{i}.{name}"
                    state_dict.setdefault(key, state_dict[prefix + name])
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[misc]


def gate(x: Tensor, weight: Tensor, scale: float) -> Tensor:
    """scale * sigmoid(w_mean * mean + w_std * std) of each image and channel, [B, C, 1, 1].

    Mean and standard deviation are those of the layer's input over the map, x [B, C, H, W], in
    float32 at least; `weight` is [C, 2]. With weight 0 and scale 2 it is exactly 1.

    Cost: three passes over the map; `torch.var_mean` over small maps takes many times as long.
    """
    x = (x if x.dtype == torch.float64 else x.float()).flatten(2)
    mean = x.mean(-1)
    var = (x - mean[..., None]).square().mean(-1)
    statistics = torch.stack([mean, (var + 1e-5).sqrt()], dim=-1)  # [B, C, 2]
    return scale * torch.sigmoid((statistics * weight).sum(-1))[..., None, None]


def convert(model: nn.Module, domains: Domains, *, gate_scale: float = 0.0) -> int:
    """Gives every batch norm of a model a branch for each domain, in place.

    All branches start as copies of the layer: weights, statistics, what is frozen, chunks
    (`split_batch_norm`, to be called before) and synchronisation over processes included. The
    instance half of an IBN layer stays as it is. Outside `domains.of` the target's branch works, so
    evaluation and extraction need no word about domains.

    Args:
        model: changed in place.
        domains: tells the layers whose images they see.
        gate_scale: above 0, the output is multiplied by `gate`, one weight for each domain, 0 at
            the start: 2 starts at identity, 1 (published) halves every output at first.
    Returns:
        Number of layers changed.

    Source: Bai et al., Unsupervised Multi-Source Domain Adaptation for Person Re-Identification,
    CVPR 2021 (RDSBN). Differs: the gate starts at identity by default; any order of images.
    """
    changed = 0
    for module in list(model.modules()):
        if not isinstance(module, _BatchNorm) or isinstance(module, _DomainForward):
            continue
        branches = nn.ModuleList(copy.deepcopy(module) for _ in domains.names[1:])
        kind = type(module)
        module.__class__ = type(f"Domain{kind.__name__}", (_DomainForward, kind), {})
        module.domains, module.sources, module.gates = domains, branches, None  # type: ignore[assignment]
        if gate_scale > 0:
            like = module.running_mean if module.weight is None else module.weight
            weights = [torch.zeros(module.num_features, 2, device=like.device, dtype=like.dtype)]
            module.gates = nn.ParameterList(w.clone() for w in weights * len(domains.names))
            module.gate_scale = gate_scale  # type: ignore[assignment]
        changed += 1
    return changed


@torch.no_grad()
def init_target_from_sources(model: nn.Module) -> int:
    """Sets scale, shift and gate of the target's branch to the mean of the sources', in place.

    For the end of a training on source labels alone, which moved the sources' branches along with
    the layers around them. The target's statistics stay: see `reestimate_statistics`. Returns the
    layers changed.
    """
    changed = 0
    for module in model.modules():
        if not isinstance(module, _DomainForward) or not len(module.sources):
            continue
        for name in ("weight", "bias"):
            own = getattr(module, name)
            if own is not None:
                own.copy_(torch.stack([getattr(b, name) for b in module.sources]).mean(0))
        if module.gates is not None:
            module.gates[0].copy_(torch.stack(list(module.gates[1:])).mean(0))
        changed += 1
    return changed


def target_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Scale, shift and gate of the target's branch of every layer."""
    found: list[nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, _DomainForward):
            own = (module.weight, module.bias, *(module.gates or ())[:1])
            found += [p for p in own if p is not None and p.requires_grad]
    return found


@contextmanager
def reestimate_statistics(model: nn.Module) -> Iterator[None]:
    """Within it, batches of the target settle the running statistics of its branch, from nothing.

    They become the plain mean over the batches (AdaBN: Li et al., arXiv:1603.04779), while all else
    of the model stays in the mode it is in. A layer that sees no batch keeps what it had.
    """
    layers: list[Any] = [m for m in model.modules() if isinstance(m, _DomainForward)]
    before = [
        (layer.training, layer.momentum, layer.running_mean.clone(), layer.running_var.clone())
        for layer in layers
    ]
    for layer in layers:
        layer.reset_running_stats()
        nn.Module.train(layer)
        layer.momentum = None
    try:
        yield
    finally:
        for layer, (mode, momentum, mean, var) in zip(layers, before, strict=True):
            nn.Module.train(layer, mode)
            layer.momentum = momentum
            if not layer.num_batches_tracked:
                layer.running_mean.copy_(mean)
                layer.running_var.copy_(var)


def fold(model: nn.Module) -> int:
    """Leaves the target's branch alone, in place; returns the number of gates that had to stay.

    A gate that is exactly 1 for every input goes too, and the layer is what it was before
    `convert`. Other gates depend on the input and stay, the target's only.
    """
    left = 0
    for module in list(model.modules()):
        if not isinstance(module, _DomainForward):
            continue
        assert isinstance(module, nn.Module)
        module.domains, module.sources = Domains(module.domains.names[:1]), nn.ModuleList()
        if module.gates is not None and not _is_identity(module.gates[0], module.gate_scale):
            module.gates = nn.ParameterList([module.gates[0]])
            left += 1
            continue
        del module.sources, module.gates
        module.__class__ = type(module).__mro__[2]
    return left


def folded_state(state: dict[str, Tensor], *, gate_scale: float = 2.0) -> dict[str, Tensor]:
    """Entries of a checkpoint's model without the sources' branches and without identity gates.

    Raises:
        ValueError: if a gate of the target is not identity, for then no plain batch norm is equal.
    """
    left = {}
    for name, value in state.items():
        parts = name.split(".")
        if GATES in parts and parts[-1] == "0" and not _is_identity(value, gate_scale):
            raise ValueError(
                f"{name} is a gate that depends on the image (CC.SOURCES.BN rectified): stock"
                " fastreid has no such layer. Build the network with the same CC.SOURCES keys and"
                " export that; CC.SOURCES.BN domain folds."
            )
        if SOURCES not in parts and GATES not in parts:
            left[name] = value
    return left


def _is_identity(weight: Tensor, scale: float) -> bool:
    return scale == 2.0 and not bool(weight.any())
