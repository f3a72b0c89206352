"""Batch norm with a branch for each domain, in place of the layers a model has.

A converted layer keeps the target's branch under its own names (`weight`, `running_mean`, ...) and
holds the sources' branches beside it, in `sources`. So a checkpoint is one of the plain network,
with entries more that stock fastreid skips, and a plain checkpoint loads into every branch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .replace_layers import rebuild, replace_layers, specialise

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


class DomainBatchNorm(_BatchNorm):
    """Batch norm that gives each domain's images to that domain's branch; made by `convert`.

    Attributes:
        kind: class of the layer it replaces, which is the target's branch.
        domains: tells whose images the forward at hand sees.
        sources: the other branches, layers of `kind`.
        gates: [C, 2] for each domain, the target first; None = no gate.
        gate_scale: see `gate`.
    """

    kind: ClassVar[type[_BatchNorm]]
    domains: Domains
    sources: nn.ModuleList
    gates: nn.ParameterList | None
    gate_scale: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x [B, C, ...] by the domains that `domains.of` says."""
        return self.domains.join([self._branch(d, part) for d, part in self.domains.split(x)])

    def _branch(self, domain: int, x: Tensor) -> Tensor:
        y: Tensor = self.sources[domain - 1](x) if domain else super().forward(x)
        if self.gates is None:
            return y
        return y * gate(x, self.gates[domain], self.gate_scale).to(y.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            for i in range(len(self.sources)):
                if prefix + name in state_dict:
                    key = f"{prefix}{SOURCES}.{i}.{name}"
                    state_dict.setdefault(key, state_dict[prefix + name])
        super()._load_from_state_dict(state_dict, prefix, *rest)


def gate(x: Tensor, weight: Tensor, scale: float) -> Tensor:
    """scale * sigmoid(w_mean * mean + w_std * std) of each image and channel, [B, C, 1, 1].

    Mean and standard deviation (of the unbiased variance, + 1e-5) are those of the layer's input
    over the map, x [B, C, H, W], in float32 at least; `weight` is [C, 2]. With weight 0 and scale 2
    it is exactly 1. The variance of a map of one pixel is 0.

    Cost: three passes over the map; `torch.var_mean` over small maps takes many times as long.
    """
    x = (x if x.dtype == torch.float64 else x.float()).flatten(2)
    mean = x.mean(-1)
    var = (x - mean[..., None]).square().sum(-1) / max(x.shape[-1] - 1, 1)
    statistics = torch.stack([mean, (var + 1e-5).sqrt()], dim=-1)  # [B, C, 2]
    return scale * torch.sigmoid((statistics * weight).sum(-1))[..., None, None]


def convert(model: nn.Module, domains: Domains, *, gate_scale: float = 0.0) -> nn.Module:
    """Replaces every batch norm of a model by one with a branch for each domain.

    All branches start as copies of the layer: weights, statistics, what is frozen, chunks
    (`split_batch_norm`, to be called before) and synchronisation over processes included. The
    target's branch holds the layer's own parameters under their old names. The instance half of an
    IBN layer stays as it is. Outside `domains.of` the target's branch works, so evaluation and
    extraction need no word about domains.

    Args:
        model: changed in place; layers that are converted already stay.
        domains: tells the layers whose images they see.
        gate_scale: above 0, the output is multiplied by `gate`, one weight for each domain, 0 at
            the start: 2 starts at identity, 1 (published) halves every output at first.
    Returns:
        The model; another one only if it is itself a batch norm.

    Source: Bai et al., Unsupervised Multi-Source Domain Adaptation for Person Re-Identification,
    CVPR 2021 (RDSBN). Differs: the gate starts at identity by default; any order of images.

    >>> net = convert(nn.Sequential(nn.BatchNorm2d(4)), Domains(("target", "duke")))
    >>> list(net.state_dict())[:3], list(net.state_dict())[-1]
    (['0.weight', '0.bias', '0.running_mean'], '0.sources.0.num_batches_tracked')
    """

    def replacement(layer: nn.Module) -> nn.Module | None:
        if isinstance(layer, DomainBatchNorm):
            return layer
        if not isinstance(layer, _BatchNorm):
            return None
        made = specialise(layer, DomainBatchNorm)
        made.domains, made.gates, made.gate_scale = domains, None, gate_scale
        made.sources = nn.ModuleList(copy.deepcopy(layer) for _ in domains.names[1:])
        if gate_scale > 0:
            like = layer.running_mean if layer.weight is None else layer.weight
            weight = torch.zeros(layer.num_features, 2, device=like.device, dtype=like.dtype)
            made.gates = nn.ParameterList(weight.clone() for _ in domains.names)
        return made

    return replace_layers(model, replacement)


def num_converted(model: nn.Module) -> int:
    """Layers of a model that have branches."""
    return len(_layers(model))


@torch.no_grad()
def init_target_from_sources(model: nn.Module) -> int:
    """Sets scale, shift and gate of the target's branch to the mean of the sources', in place.

    For the end of a training on source labels alone, which moved the sources' branches along with
    the layers around them. The target's statistics stay: see `reestimate_statistics`. Returns the
    layers changed.
    """
    layers = [layer for layer in _layers(model) if len(layer.sources)]
    for layer in layers:
        branches = [layer, *layer.sources]
        weights, biases = [b.weight for b in branches], [b.bias for b in branches]
        shared: list[Any] = [weights, biases, *([layer.gates] if layer.gates else [])]
        for own, *others in shared:
            if own is not None:
                own.copy_(torch.stack(others).mean(0))
    return len(layers)


def target_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Scale, shift and gate of the target's branch of every layer."""
    owned = [(m.weight, m.bias, *(m.gates or ())[:1]) for m in _layers(model)]
    return [p for own in owned for p in own if p is not None and p.requires_grad]


def _layers(model: nn.Module) -> list[DomainBatchNorm]:
    return [module for module in model.modules() if isinstance(module, DomainBatchNorm)]


@contextmanager
def reestimate_statistics(model: nn.Module) -> Iterator[None]:
    """Within it, batches of the target settle the running statistics of its branch, from nothing.

    They become the plain mean over the batches (AdaBN: Li et al., arXiv:1603.04779), while all else
    of the model stays in the mode it is in. A layer that sees no batch keeps what it had.
    """
    layers: list[Any] = _layers(model)
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


def strip(model: nn.Module) -> nn.Module:
    """Leaves the target's branch alone: puts the layers back that `convert` replaced.

    A gate that is exactly 1 for every input goes too. Other gates depend on the input: such a layer
    stays a `DomainBatchNorm` with the target's branch and gate.

    Returns:
        The model, changed in place; another one only if it is itself a batch norm.
    """

    def replacement(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, DomainBatchNorm):
            return None
        if layer.gates is not None and not _is_identity(layer.gates[0], layer.gate_scale):
            layer.domains, layer.sources = Domains(layer.domains.names[:1]), nn.ModuleList()
            layer.gates = nn.ParameterList([layer.gates[0]])
            return layer
        plain = rebuild(layer.kind, layer)
        del plain.domains, plain.sources, plain.gates, plain.gate_scale
        return plain

    return replace_layers(model, replacement)


def strip_state(state: dict[str, Tensor], *, gate_scale: float = 2.0) -> dict[str, Tensor]:
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
                " export that; CC.SOURCES.BN domain can be stripped."
            )
        if SOURCES not in parts and GATES not in parts:
            left[name] = value
    return left


def _is_identity(weight: Tensor, scale: float) -> bool:
    return scale == 2.0 and not bool(weight.any())
