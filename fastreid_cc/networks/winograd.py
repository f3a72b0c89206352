"""3x3 convolutions by Winograd's minimal filtering: fewer products than a kernel has taps.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv 1509.09308:
y = A (G w · B x) gives four outputs of a 3-tap filter by 6 products in place of 12. Where a map is
two wide and the rest padding, 3 do: y0 = w1 (x0 + x1) + (w2 - w1) x1, and y1 likewise. PyTorch has
the method for inference on some processors; here its gradients are such matrix products too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

TILE = 4  # outputs
# Beyond these the transforms cost what the products save.
FEWEST_CHANNELS, FEWEST_ROWS = 64, 32
CHANNELS_OF_LARGE, LARGE = 128, 128  # channels of maps with more places than that

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
    PyTorch's own, channels last: 512 channels of 4x2 places .24, 256 of 4x2 .30, 128 of 8x4 .47, 64
    of 16x8 .76 (64 maps); 512 of 8x4 .58, 256 of 16x8 .52, 128 of 16x8 .62, 128 of 32x16 .79 (32).
    """
    return _Filtered.apply(images, weight)


class _Filtered(torch.autograd.Function):
    """Transforms, one product for each of Q places in a tile, the transform back; by hand, so that
    the gradient of the weight comes in the order of its memory."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        height, width = images.shape[2:]
        (rows, kernel_rows, back_rows) = filters(height, images.dtype)
        (columns, kernel_columns, back_columns) = filters(width, images.dtype)
        sides = len(kernel_rows), len(kernel_columns)
        taps = torch.kron(kernel_rows, kernel_columns)
        flat = weight.permute(2, 3, 0, 1).reshape(9, -1)  # a view of a contiguous weight
        kernels = (taps @ flat).view(-1, *weight.shape[:2])
        tiles = _to_tiles(images, rows, columns, sides)
        ctx.save_for_backward(tiles, kernels)
        ctx.size, ctx.sides, ctx.taps = (height, width), sides, taps
        return _from_tiles(tiles @ kernels.transpose(1, 2), back_rows, back_columns, sides)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        tiles, kernels = ctx.saved_tensors
        (rows, _, back_rows), (columns, _, back_columns) = (
            filters(s, grad.dtype) for s in ctx.size
        )
        found = _to_tiles(grad, back_rows.T, back_columns.T, ctx.sides)
        images = weight = None
        if ctx.needs_input_grad[0]:
            images = _from_tiles(found @ kernels, rows.T, columns.T, ctx.sides)
        if ctx.needs_input_grad[1]:
            flat = ctx.taps.T @ (found.transpose(1, 2) @ tiles).view(len(kernels), -1)
            weight = flat.T.reshape(*kernels.shape[1:], 3, 3)
        return images, weight


def _to_tiles(maps: Tensor, rows: Tensor, columns: Tensor, sides: tuple[int, int]) -> Tensor:
    """[B, C, H, W], [down·P, H] and [across·R, W] -> [P·R, down·across·B, C]."""
    batch, channels, height, width = maps.shape
    down, across = len(rows) // sides[0], len(columns) // sides[1]
    lines = columns @ maps.permute(2, 3, 0, 1).reshape(height, width, -1)
    tiles = rows @ lines.view(height, -1)
    tiles = tiles.view(down, sides[0], across, sides[1], batch, channels)
    return tiles.permute(1, 3, 0, 2, 4, 5).reshape(sides[0] * sides[1], -1, channels)


def _from_tiles(tiles: Tensor, rows: Tensor, columns: Tensor, sides: tuple[int, int]) -> Tensor:
    """[P·R, down·across·B, C], [H, down·P] and [W, across·R] -> [B, C, H, W], channels last."""
    channels = tiles.shape[2]
    down, across = rows.shape[1] // sides[0], columns.shape[1] // sides[1]
    tiles = tiles.view(*sides, down, across, -1, channels)
    tiles = tiles.permute(2, 0, 3, 1, 4, 5).reshape(rows.shape[1], -1)
    lines = (rows @ tiles).view(len(rows), columns.shape[1], -1)
    maps = (columns @ lines).view(len(rows), len(columns), -1, channels)
    return maps.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution that takes `winograd_conv3x3` where it was measured to pay.

    On an x86 CPU, outside autocast (the method needs float32), with at least 64 channels
    on both sides (128 on maps of more than 128 places) and 32 rows in its products. Elsewhere, and
    in an exported or compiled network, it is the stock one.
    """

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, H, W]."""
        if images.device.type != "cpu" or torch.jit.is_tracing() or not pays():
            return super().forward(images)
        if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return super().forward(images)
        batch, channels, height, width = images.shape
        if height * width > LARGE and min(channels, self.out_channels) < CHANNELS_OF_LARGE:
            return super().forward(images)
        if batch * -(-height // TILE) * -(-width // TILE) < FEWEST_ROWS:
            return super().forward(images)
        return winograd_conv3x3(images, self.weight)


def pays() -> bool:
    """Whether it was measured to pay on such a processor: AVX2 (AMD), AVX-512 (Intel)."""
    return torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2", "AVX512")


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
