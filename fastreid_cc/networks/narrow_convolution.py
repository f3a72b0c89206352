"""3x3 convolutions of maps one or two columns wide, as one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDEST = 2


def narrow_conv3x3(images: Tensor, weight: Tensor) -> Tensor:
    """What `F.conv2d(images, weight, padding=1)` gives, up to the order of sums.

    In a map two columns wide a third of a 3x3 kernel meets padding alone, at width one two thirds.
    Here the columns are read as channels, so that no product with padding is made: a row of the
    output is that of three rows of the input times one [3·W·C, W·O] matrix.

    Args:
        images: floating point [B, C, H, W], W at most 2.
        weight: [O, C, 3, 3].
    Returns:
        [B, O, H, W], channels last.

    Cost: B·H·3·(W·C)·(W·O) products, two thirds of the convolution's at W = 2, a third at W = 1;
    B·(H + 2)·W·C·4 and 3·W²·C·O numbers beside it. For width 2, 512 to 512 channels, 64 maps of
    height 4, forward and backward took 0.56 of the time of PyTorch's own on one core with AVX2.
    """
    batch, channels, height, width = images.shape
    if width > WIDEST:
        raise ValueError(f"a map of {width} columns, at most {WIDEST} pay")
    taps = [torch.stack([weight[..., 1 + i - j] for j in range(width)]) for i in range(width)]
    matrix = torch.stack(taps).permute(4, 0, 3, 1, 2)  # [3, W in, C, W out, O]
    rows = F.pad(images, (0, 0, 1, 1)).permute(0, 2, 3, 1).reshape(batch, height + 2, -1)
    seen = torch.cat([rows[:, at : at + height] for at in range(3)], 2)
    found = seen.flatten(0, 1) @ matrix.reshape(seen.shape[2], -1)
    return found.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class NarrowConv2d(nn.Conv2d):
    """A 3x3 convolution that takes `narrow_conv3x3` where its map is narrow enough.

    On a CPU without AVX-512 alone: elsewhere, and in an exported network, it is the stock one.
    """

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, H, W]."""
        if images.shape[3] > WIDEST or images.device.type != "cpu" or torch.jit.is_tracing():
            return super().forward(images)
        if not pays() or torch.compiler.is_compiling():
            return super().forward(images)
        return narrow_conv3x3(images, self.weight)


def pays() -> bool:
    """Whether this processor is one that it was measured to pay on."""
    return torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


def use_narrow_convolutions(network: nn.Module) -> int:
    """Makes every 3x3 convolution of stride 1 and padding 1, without bias or groups, one; counts.

    In place; parameters, their names and a checkpoint stay as they are.
    """
    count = 0
    for module in network.modules():
        if type(module) is nn.Conv2d and _fits(module):
            module.__class__ = NarrowConv2d
            count += 1
    return count


def _fits(module: nn.Conv2d) -> bool:
    plain = module.padding_mode == "zeros" and module.groups == 1 and module.bias is None
    shape = (module.kernel_size, module.stride, module.padding, module.dilation)
    return plain and shape == ((3, 3), (1, 1), (1, 1), (1, 1))
