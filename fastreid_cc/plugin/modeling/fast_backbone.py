"""How the backbone computes, whatever it is: memory format, Winograd, compilation, precision.

Weights stay as they are: fastreid's optimizer lays them out anew, and a convolution follows the
format of its input.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import BadConfig
from ...networks.winograd import use_winograd
from ...parallel.processor import has_bfloat16_units, keep_freed_memory

logger = logging.getLogger("fastreid.cc.modeling")


def prepare_processor(cfg: Any) -> None:
    """Applies CC.FLUSH_DENORMALS and CC.KEEP_FREED_MEMORY, on a CPU and for the whole process.

    Before a network is built, since threads take over how the one that starts them treats numbers
    below 1.2e-38: as 0, or at a cost of hundreds of cycles each. 468 of the 140,296 weights of an
    OSNet x0.25 trained on MSMT17 are such: its forward pass took 2.6 times as long with them.
    """
    if str(cfg.MODEL.DEVICE).startswith("cuda") and torch.cuda.is_available():
        return
    if cfg.CC.FLUSH_DENORMALS:
        torch.set_flush_denormal(True)
    if cfg.CC.KEEP_FREED_MEMORY:
        keep_freed_memory()


def speed_up(backbone: nn.Module, cfg: Any) -> None:
    """Applies MODEL.BACKBONE.CHANNELS_LAST, WINOGRAD, COMPILE and TEST.AMP.

    Values change by rounding; with TEST.AMP by that of the format, for labels too. Training, DDP,
    copies of the network and checkpoints are as without.

    Raises:
        BadConfig: to compile where the batch norm of a batch is chosen from outside.
    """
    if cfg.MODEL.BACKBONE.CHANNELS_LAST and not _breaks_memory(backbone):
        backbone.register_forward_pre_hook(_channels_last)
    if cfg.MODEL.BACKBONE.WINOGRAD:
        use_winograd(backbone)
    if cfg.TEST.AMP:
        _test_in(backbone, half_precision(cfg.MODEL.DEVICE, cfg.CC.AMP_DTYPE))
    if cfg.MODEL.BACKBONE.COMPILE != "off":
        _refuse_switched_batch_norm(cfg)
        backbone.compile(backend=cfg.MODEL.BACKBONE.COMPILE)


def _breaks_memory(backbone: nn.Module) -> bool:
    """Whether PyTorch's own convolution would write beside its memory on a CPU, channels last.

    oneDNN 3.13 (PyTorch 2.15, AVX2) did, in the gradient of a 1x1 convolution with a stride whose
    input channels do not fill its registers: RepVGG's stem, 3 to 48, stride 2.
    """
    for name, module in backbone.named_modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1):
            continue
        if module.stride != (1, 1) and (module.in_channels // module.groups) % 8:
            logger.warning(
                f"MODEL.BACKBONE.CHANNELS_LAST=True is left out: {name}, a 1x1 convolution of"
                f" {module.in_channels} channels with a stride, corrupts memory on CPUs with it."
            )
            return True
    return False


def _refuse_switched_batch_norm(cfg: Any) -> None:
    """What is compiled must not be another network from batch to batch."""
    for node, found, value in (("SOURCES", cfg.CC.SOURCES.BN, "shared"),
                               ("EXTRACT", cfg.CC.EXTRACT.BN, "running")):  # fmt: skip
        if found != value:
            raise BadConfig(
                f"MODEL.BACKBONE.COMPILE={cfg.MODEL.BACKBONE.COMPILE} needs CC.{node}.BN {value},"
                f" found {found}, which changes batch norms between batches. Set COMPILE off."
            )


def half_precision(device: str, wanted: str) -> torch.dtype:
    """float16 on CUDA unless bfloat16 is `wanted`; bfloat16 on a CPU that has units for it."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.bfloat16 if wanted == "bfloat16" else torch.float16
    return torch.bfloat16 if has_bfloat16_units(torch.device("cpu")) else torch.float32


def _channels_last(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (args[0].contiguous(memory_format=torch.channels_last), *args[1:])


def _test_in(backbone: nn.Module, dtype: torch.dtype) -> None:
    """Lets the backbone compute in `dtype` in evaluation mode; its features are float32."""
    if dtype == torch.float32:
        logger.info("TEST.AMP=True, but this processor has no bfloat16 units: float32")
        return
    stock = type(backbone)

    def forward(self: nn.Module, images: Tensor) -> Any:
        if self.training:
            return stock.forward(self, images)
        with torch.autocast(images.device.type, dtype):
            found = stock.forward(self, images)
        return found.float()

    # a class, not an attribute: copies of the network, a teacher's, work with their own weights
    backbone.__class__ = type(stock.__name__, (stock,), {"forward": forward})
