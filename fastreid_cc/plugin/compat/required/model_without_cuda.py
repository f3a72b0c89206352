"""Models on a machine without CUDA."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from fastreid.engine import defaults
from fastreid.modeling.meta_arch import build as meta_arch
from torch import nn

from ..patching import around, assign, with_values

logger = logging.getLogger("fastreid.cc.compat")


@around(meta_arch, "build_model")
def build_on_the_cpu_without_cuda(stock: Any, cfg: Any) -> nn.Module:
    """Builds on the CPU where MODEL.DEVICE says cuda and there is none.

    Breaks: the default is "cuda"; `model.to` then fails. Does: builds on the CPU and says so. On a
    machine with CUDA nothing changes. Test: test_compat_model.py. May go: when fastreid's default
    follows the machine.
    """
    if str(cfg.MODEL.DEVICE).startswith("cuda") and not torch.cuda.is_available():
        logger.warning(f"MODEL.DEVICE={cfg.MODEL.DEVICE!r} but there is no CUDA: using the CPU.")
        cfg = with_values(cfg, "MODEL.DEVICE", "cpu")
    return stock(cfg)


def distribute_models_on_the_cpu() -> None:
    """Wraps a model on the CPU in DistributedDataParallel without `device_ids`.

    Breaks: `device_ids=[local rank]` with it is a ValueError, device_ids must be None for CPU
    modules. Does: None there; and torch 2.15's warning of fastreid's `broadcast_buffers=False`,
    which means what it did, is not shown. Test:
    test_boot.py::test_two_processes_train_the_stock_script. May go: when fastreid checks this.
    """
    parallel = nn.parallel.DistributedDataParallel

    def wrapped(model: nn.Module, **kwargs: Any) -> nn.Module:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return parallel(model, **kwargs)

    def distribute(model: nn.Module, device_ids: Any = None, **kwargs: Any) -> nn.Module:
        if next(model.parameters()).is_cuda:
            return wrapped(model, device_ids=device_ids, **kwargs)
        if torch.distributed.get_backend() == "nccl":
            raise ValueError(
                "MODEL.DEVICE='cpu' with --num-gpus > 1 on a machine with CUDA: hide the GPUs, "
                "CUDA_VISIBLE_DEVICES='' python ..., so that the processes talk over gloo."
            )
        return wrapped(model, device_ids=None, **kwargs)

    assign(defaults, "DistributedDataParallel", distribute)
