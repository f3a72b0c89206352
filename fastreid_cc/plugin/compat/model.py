"""Building models: device, DistributedDataParallel, RegNet and EfficientNet, Flatten."""

from __future__ import annotations

import functools
import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .imports import fastreid_module
from .patching import assign, replace

logger = logging.getLogger("fastreid.cc.compat")


def build_on_the_cpu_without_cuda() -> None:
    """MODEL.DEVICE on a machine without CUDA.

    Breaks: the default is "cuda"; `model.to` then fails. Does: builds on the CPU and says so. On a
    machine with CUDA nothing changes. Test: test_compat_model.py. May go: when fastreid's default
    follows the machine.
    """
    module = fastreid_module("modeling.meta_arch.build")
    stock = module.build_model

    @functools.wraps(stock)
    def build_model(cfg: Any) -> nn.Module:
        if str(cfg.MODEL.DEVICE).startswith("cuda") and not torch.cuda.is_available():
            logger.warning(
                f"MODEL.DEVICE={cfg.MODEL.DEVICE!r} but there is no CUDA: using the CPU."
            )
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.DEVICE = "cpu"
        return stock(cfg)

    replace(module, "build_model", build_model)


def distribute_models_on_the_cpu() -> None:
    """`DistributedDataParallel(device_ids=[local rank])` with a model on the CPU.

    Breaks: ValueError, device_ids must be None for CPU modules. Does: None there. Test:
    test_boot.py::test_two_processes_train_the_stock_script. May go: when fastreid checks this.
    """
    parallel = nn.parallel.DistributedDataParallel

    def distribute(model: nn.Module, device_ids: Any = None, **kwargs: Any) -> nn.Module:
        if next(model.parameters()).is_cuda:
            return parallel(model, device_ids=device_ids, **kwargs)
        if torch.distributed.get_backend() == "nccl":
            raise ValueError(
                "MODEL.DEVICE='cpu' with --num-gpus > 1 on a machine with CUDA: hide the GPUs, "
                "CUDA_VISIBLE_DEVICES='' python ..., so that the processes talk over gloo."
            )
        return parallel(model, device_ids=None, **kwargs)

    assign(fastreid_module("engine.defaults"), "DistributedDataParallel", distribute)


def build_regnets_from_anywhere() -> None:
    """RegNet and EfficientNet read YAML files into one shared config.

    Breaks: the paths are relative to the root of the repository (FileNotFoundError elsewhere); the
    config keeps what an earlier model set, so RegNetX built after RegNetY gets SE blocks. All
    versions. Does: paths fall back to the installed package; each model starts from the defaults.
    Test: test_compat_model.py. May go: when fastreid does both.
    """
    for name in ("regnet", "effnet"):
        module = fastreid_module(f"modeling.backbones.regnet.{name}")
        assign(module, f"{name}_cfg", _packaged_config())


def _packaged_config() -> Any:
    source = fastreid_module("modeling.backbones.regnet.config")
    spec = importlib.util.spec_from_file_location(source.__name__, source.__file__)
    assert spec is not None and spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)  # the shared one may have been changed already
    spec.loader.exec_module(fresh)
    return _PackagedConfig(fresh.cfg, Path(source.__file__).resolve().parents[4])


class _PackagedConfig:
    """A yacs config that forgets earlier files and finds those of the package."""

    def __init__(self, defaults: Any, root: Path) -> None:
        self._defaults, self._root = defaults, root
        self._now = defaults.clone()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now, name)

    def merge_from_file(self, name: str) -> None:
        """Starts from the defaults; `name` may be relative to the folder that holds fastreid."""
        self._now = self._defaults.clone()
        self._now.merge_from_file(name if Path(name).exists() else str(self._root / name))


def explain_flatten() -> None:
    """MODEL.HEADS.POOL_LAYER=Flatten in an embedding head.

    Breaks: the head's size is FEAT_DIM, but Flatten gives channels x height x width: an obscure
    shape error. All versions. Does: an error that names both keys and the number. Test:
    test_compat_model.py. May go: never.
    """
    head = fastreid_module("modeling.heads.embedding_head").EmbeddingHead
    stock = head.forward

    @functools.wraps(stock)
    def forward(self: Any, features: torch.Tensor, targets: Any = None) -> Any:
        try:
            return stock(self, features, targets)
        except RuntimeError as error:
            if type(self.pool_layer).__name__ != "Flatten":
                raise
            raise ValueError(
                "MODEL.HEADS.POOL_LAYER='Flatten' turns the backbone's output into "
                f"{features[0].numel()} numbers per image: set MODEL.BACKBONE.FEAT_DIM="
                f"{features[0].numel()}, or choose a pooling layer, e.g. 'GlobalAvgPool'."
            ) from error

    assign(head, "forward", forward)
