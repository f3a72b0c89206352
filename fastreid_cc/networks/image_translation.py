"""Networks that turn a picture into another one of its size, and one that judges patches.

After Johnson et al., arXiv:1603.08155 (residual generator), and Isola et al., arXiv:1611.07004
(patch discriminator), in the sizes of PN-GAN (Qian et al., arXiv:1712.02225).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualTranslator(nn.Module):
    """[B, ins, H, W] -> [B, 3, H, W] in -1..1; H and W multiples of 4, 16 at least.

    A 7x7 convolution, two halvings that double the channels, residual blocks, two doublings back, a
    7x7 convolution and tanh. Instance norm without weights, reflected borders at both ends.

    Args:
        ins: input channels.
        channels: of the first convolution; 64 in PN-GAN.
        blocks: residual blocks; 9 there.

    With 6 input channels: 11.4 million weights (64 channels, 9 blocks), 1.97 (32, 6), 0.35 (16, 4).
    """

    def __init__(self, ins: int, channels: int, blocks: int) -> None:
        super().__init__()
        wide = 4 * channels
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_normed(nn.Conv2d(ins, channels, 7))]
        for size in (channels, 2 * channels):
            layers += _normed(nn.Conv2d(size, 2 * size, 3, 2, 1))
        layers += [_Residual(wide) for _ in range(blocks)]
        for size in (wide, wide // 2):
            layers += _normed(nn.ConvTranspose2d(size, size // 2, 3, 2, 1, output_padding=1))
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(channels, 3, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        self.apply(small_weights)

    def forward(self, x: Tensor) -> Tensor:
        """The other picture."""
        found: Tensor = self.layers(x)
        return found


class _Residual(nn.Module):
    """x -> relu(x + two 3x3 convolutions of it)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.layers = nn.Sequential(*_normed(first), second, nn.InstanceNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


class PatchJudge(nn.Module):
    """[B, 3, H, W] -> a score of each patch, [B, 1, h, w]; H 32 at least, W 24.

    Three halving 4x4 convolutions and two that halve no more, leaky ReLU, instance norm but in the
    first. As published the last two have no border, which a picture below 56 pixels of width is too
    small for; there they get one of a pixel.

    Args:
        channels: of the first convolution; 64 in PN-GAN.
        size: (H, W).
    """

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        border = 0 if min(size) >= 56 else 1
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(0.2)]
        for ins, stride, pad in ((1, 2, 1), (2, 2, 1), (4, 1, border)):
            layers.append(nn.Conv2d(ins * channels, 2 * ins * channels, 4, stride, pad))
            layers += [nn.InstanceNorm2d(2 * ins * channels), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * channels, 1, 4, 1, border))
        self.apply(small_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Scores, about 1 for real ones after training."""
        found: Tensor = self.layers(x)
        return found


def small_weights(layer: nn.Module) -> None:
    """Weights of a convolution from N(0, 0.02), and a batch norm's from N(1, 0.02)."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)


def _normed(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return layer, nn.InstanceNorm2d(layer.out_channels), nn.ReLU()
