"""3x3 convolutions by Winograd's minimal filtering: fewer products than a kernel has taps.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv 1509.09308:
y = A (G w · B x) gives four outputs of a 3-tap filter by 6 products in place of 12. Where a map is
two wide and the rest padding, 3 do: y0 = w1 (x0 + x1) + (w2 - w1) x1, and y1 likewise. PyTorch has
the method for inference on some processors; here its gradients are such matrix products too.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

TILE = 4  # outputs
FEWEST_CHANNELS, FEWEST_ROWS = 128, 32  # below, the transforms cost what the products save

_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
#: B, G, A of lines of one and two
_NARROW = (
    (((1,),), ((0, 1, 0),), ((1,),)),
    (((1, 1), (0, 1), (1, 0)), ((0, 1, 0), (0, -1, 1), (1, -1, 0)), ((1, 1, 0), (1, 0, 1))),
)


@cache
def filters(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (B [T·P, size], G [P, 3], A [size, T·P]) of a 3-tap filter over a padded line.

    T tiles of P products each: y = A (G w · B x), with G w repeated for each tile, is the answer of
    the filter at all `size` places, zeros beside them.
    """
    if size <= len(_NARROW):
        b, g, a = (torch.tensor(part, dtype=dtype) for part in _NARROW[size - 1])
        return b, g, a
    tiles, products = -(-size // TILE), len(_INPUT)
    inputs = torch.zeros(tiles * products, tiles * TILE + 2, dtype=dtype)
    outputs = torch.zeros(tiles * TILE, tiles * products, dtype=dtype)
    for tile in range(tiles):
        own = slice(tile * products, (tile + 1) * products)
        inputs[own, tile * TILE : (tile + 1) * TILE + 2] = torch.tensor(_INPUT, dtype=dtype)
        outputs[tile * TILE : (tile + 1) * TILE, own] = torch.tensor(_OUTPUT, dtype=dtype)
    kernel = torch.tensor(_KERNEL, dtype=dtype)
    return inputs[:, 1 : size + 1].contiguous(), kernel, outputs[:size].contiguous()


def winograd_conv3x3(images: Tensor, weight: Tensor) -> Tensor:
    """What `F.conv2d(images, weight, padding=1)` gives, up to rounding, here about 1e-5 in float32.

    Args:
        images: floating point [B, C, H, W].
        weight: [O, C, 3, 3].
    Returns:
        [B, O, H, W], channels last.

    Cost, Q = 6·⌈H/4⌉ · 6·⌈W/4⌉ (3 for a side of 2): B·Q·C·O products, a quarter of the
    convolution's where 4 divides both sides. Memory until the gradient is taken: up to 4.5 times
    the input and 4 times the weight. Forward and backward on one core with AVX2 took of the time of
    PyTorch's own, channels last: 512 channels of 4x2 places .24, 256 of 8x4 .49, 128 of 8x4 .51 (64
    maps); 512 of 8x4 .58, 256 of 16x8 .52, 128 of 16x8 .62, 128 of 32x16 .79 (32 maps).
    """
    batch, channels, height, width = images.shape
    out = len(weight)
    rows, kernel_rows, back_rows = filters(height, images.dtype)
    columns, kernel_columns, back_columns = filters(width, images.dtype)
    high, wide = len(kernel_rows), len(kernel_columns)
    down, across = len(rows) // high, len(columns) // wide

    lines = columns @ images.permute(2, 3, 0, 1).reshape(height, width, -1)
    tiles = (rows @ lines.reshape(height, -1)).view(down, high, across, wide, batch, channels)
    tiles = tiles.permute(1, 3, 0, 2, 4, 5).reshape(high * wide, -1, channels)
    kernels = torch.kron(kernel_rows, kernel_columns) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    found = tiles @ kernels.view(high * wide, channels, out)
    found = found.view(high, wide, down, across, batch, out).permute(2, 0, 3, 1, 4, 5)
    lines = (back_rows @ found.reshape(down * high, -1)).view(height, across * wide, -1)
    return (back_columns @ lines).view(height, width, batch, out).permute(2, 3, 0, 1)


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution that takes `winograd_conv3x3` where it was measured to pay.

    On a CPU without AVX-512, outside autocast (the method needs float32), with at least 128
    channels on both sides and 32 rows in its products. Elsewhere, and in an exported or compiled
    network, it is the stock one.
    """

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, H, W]."""
        if images.device.type != "cpu" or torch.jit.is_tracing() or not pays():
            return super().forward(images)
        if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(images)
        batch, _, height, width = images.shape
        if batch * -(-height // TILE) * -(-width // TILE) < FEWEST_ROWS:
            return super().forward(images)
        return winograd_conv3x3(images, self.weight)


def pays() -> bool:
    """Whether this processor is one that it was measured to pay on."""
    return torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")


def use_winograd(network: nn.Module) -> int:
    """Makes every 3x3 convolution of stride 1 and padding 1, many channels, no bias or groups, one.

    In place; parameters, their names and a checkpoint stay as they are. Returns how many.
    """
    count = 0
    for module in network.modules():
        if type(module) is nn.Conv2d and _fits(module):
            module.__class__ = WinogradConv2d
            count += 1
    return count


def _fits(module: nn.Conv2d) -> bool:
    plain = module.padding_mode == "zeros" and module.groups == 1 and module.bias is None
    shape = (module.kernel_size, module.stride, module.padding, module.dilation)
    many = min(module.in_channels, module.out_channels) >= FEWEST_CHANNELS
    return plain and many and shape == ((3, 3), (1, 1), (1, 1), (1, 1))
