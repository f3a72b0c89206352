"""The convolutional stem (ICS) that a ViT for re-identification cuts its patches with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadConfig

_CHANNELS = 64


class IcsStem(nn.Module):
    """Patches by four convolutions in place of one: for timm's `embed_layer` of a ViT.

    7x7 stride 2 -> IBN -> ReLU -> 3x3 -> IBN -> ReLU -> 3x3 -> BN -> ReLU, all with 64 channels and
    without bias, then a convolution of half the patch's size and stride with bias. Parameters carry
    the published names, `conv.{0, 1.IN, 1.BN, 3, 4.IN, 4.BN, 6, 7}` and `proj`.

    Args:
        img_size: (height, width) in pixels.
        patch_size: pixels of a patch, even; 16 as published.
        in_chans: channels of an image.
        embed_dim: size of a token.
        bias: whether `proj` has one.
        dynamic_img_pad: must be off; timm passes it.

    Attributes:
        grid_size: rows and columns of patches.
        num_patches: their number.

    Raises:
        BadConfig: if the patch does not divide the image, or is odd.

    Source: Luo et al., TransReID-SSL, arXiv:2111.12084, from a description of the authors' code;
    1.36 million parameters more than one convolution. No recording of their code was at hand.
    """

    def __init__(
        self,
        img_size: Any = 224,
        patch_size: Any = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        dynamic_img_pad: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if not isinstance(patch_size, int) or patch_size % 2 or dynamic_img_pad:
            raise BadConfig(f"MODEL.BACKBONE.TIMM.STEM=ics needs an even patch, not {patch_size}.")
        if height % patch_size or width % patch_size:
            raise BadConfig(
                f"INPUT.SIZE_TRAIN={height, width} must be a multiple of the patch, {patch_size}."
            )
        self.img_size = (height, width)
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        where = {"device": device, "dtype": dtype}
        plain: dict[str, Any] = {"bias": False, **where}
        self.conv = nn.Sequential(
            nn.Conv2d(in_chans, _CHANNELS, 7, 2, 3, **plain),
            _Ibn(**where),
            nn.ReLU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, 1, 1, **plain),
            _Ibn(**where),
            nn.ReLU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, 1, 1, **plain),
            nn.BatchNorm2d(_CHANNELS, **where),
            nn.ReLU(),
        )
        half = patch_size // 2
        self.proj = nn.Conv2d(_CHANNELS, embed_dim, half, half, bias=bias, **where)

    def feat_ratio(self) -> int:
        """Pixels from one patch to the next; timm asks."""
        return self.patch_size[0]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, patches, embed_dim], row by row.

        Raises:
            BadConfig: if the images are of another size than `img_size`.
        """
        if tuple(images.shape[-2:]) != self.img_size:
            raise BadConfig(
                f"Images of {tuple(images.shape[-2:])} where the network was built for"
                f" {self.img_size}: INPUT.SIZE_TEST must be INPUT.SIZE_TRAIN."
            )
        found: Tensor = self.proj(self.conv(images))
        return found.flatten(2).transpose(1, 2)


class _Ibn(nn.Module):
    """Instance norm on the first half of the channels, batch norm on the second."""

    def __init__(self, **where: Any) -> None:
        super().__init__()
        half = _CHANNELS // 2
        self.IN = nn.InstanceNorm2d(half, affine=True, **where)
        self.BN = nn.BatchNorm2d(_CHANNELS - half, **where)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 64, H, W] -> the same."""
        first, second = x.split(_CHANNELS // 2, dim=1)
        return torch.cat([self.IN(first.contiguous()), self.BN(second.contiguous())], dim=1)
