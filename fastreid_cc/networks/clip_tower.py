"""The image tower of CLIP, a vision transformer; and its weights, whoever wrote them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import BadConfig, MissingWeights
from ..registry import Part
from .weights import refuse_other_shapes


class ClipTower(Part, nn.Module):
    """CLIP's ViT for images of any size that holds a patch; gives its two class tokens.

    A convolution cuts patches, the class token goes before them, positions are added, LN, `depth`
    blocks z += MHA(LN z), z += W2 q(W1 LN z) with q(u) = u sigmoid(1.702 u), LN. "class" is the
    class token t [width], "projected" is p = t proj [embed_dim].

    Args:
        image_size: (height, width) in pixels.
        width: size of a token (768 in ViT-B).
        depth: number of blocks.
        heads: attention heads of a block.
        embed_dim: size of the projected class token.
        patch: height and width of a patch in pixels.
        stride: pixels from one patch to the next; below `patch`, patches overlap.
        layer_decay: factor of the learning rate from a block to the one below it; 1 = one rate.
        tokens: "both" ([t ; p], as in PCL-CLIP), "class" or "projected".
        checkpointing: compute the blocks again in the backward pass: the memory of one block's
            activations in place of all, for a third more time. Same gradients.

    Attributes:
        feature_size: D, size of what `forward` gives.
        grid: rows and columns of patches.

    Raises:
        ValueError: if width is no multiple of heads, or the image is smaller than a patch.

    Parameters carry the names of OpenAI's published state dict without "visual.". The stream of
    tokens stays float32 under autocast. Only the class token leaves the last block, so that block
    computes nothing else (8 % of a ViT-B). Cost: 11.3 GMAC an image for ViT-B/16 at 256x128.
    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    2021; both tokens: Li and Gong, arXiv:2310.17218. Equal to recorded values
    (tests/parity/clip).
    """

    key = "MODEL.BACKBONE.CLIP"
    limits = {
        "width": "[1, inf)",
        "depth": "[1, inf)",
        "heads": "[1, inf)",
        "embed_dim": "[1, inf)",
        "patch": "[1, inf)",
        "stride": "[1, inf)",
        "layer_decay": "(0, 1]",
        "tokens": ("both", "class", "projected"),
    }

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        embed_dim: int = 512,
        patch: int = 16,
        stride: int = 16,
        tokens: str = "both",
        layer_decay: float = 1.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"{self.key}.WIDTH={width} must be a multiple of {self.key}.HEADS={heads}."
            )
        if min(image_size) < patch:
            raise ValueError(
                f"INPUT.SIZE_TRAIN={tuple(image_size)} holds no patch of"
                f" {self.key}.PATCH={patch} pixels."
            )
        rows, columns = ((size - patch) // stride + 1 for size in image_size)
        self.grid = (rows, columns)
        self.tokens, self.layer_decay, self.checkpointing = tokens, layer_decay, checkpointing
        self.feature_size = {"class": width, "projected": embed_dim}.get(tokens, width + embed_dim)
        scale = width**-0.5
        self.conv1 = nn.Conv2d(3, width, patch, stride, bias=False)
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(rows * columns + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Transformer(width, depth, heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, embed_dim))

    def embed(self, images: Tensor) -> Tensor:
        """Tokens before the first block, [B, rows * columns + 1, width], class token first."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        if patches.shape[1] != len(self.positional_embedding) - 1:
            height, width = images.shape[-2:]
            raise BadConfig(
                f"Images of {height}x{width} give {patches.shape[1]} patches, the network was built"
                f" for {self.grid[0]}x{self.grid[1]}: INPUT.SIZE_TEST must be INPUT.SIZE_TRAIN."
            )
        first = self.class_embedding.expand(len(images), 1, -1)
        return self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W], normalised -> [B, D, 1, 1], the tokens that `tokens` names."""
        z = self.embed(images)
        *blocks, last = self.transformer.resblocks
        again = self.checkpointing and torch.is_grad_enabled()
        for block in blocks:
            z = checkpoint(block, z, use_reentrant=False) if again else block(z)
        t = self.ln_post(last(z, num_queries=1)[:, 0])
        found = [t] if self.tokens != "projected" else []
        found += [t @ self.proj] if self.tokens != "class" else []
        return torch.cat([part.float() for part in found], dim=1)[..., None, None]

    def lr_factors(self) -> dict[str, float]:
        """Parameter -> factor of its learning rate, `layer_decay` to the power of layers above.

        Layer 0 makes the tokens, the blocks follow; what comes after them has factor 1.
        """
        top, found = len(self.transformer.resblocks) + 1, {}
        for name, _ in self.named_parameters():
            is_last = name.startswith(("ln_post", "proj"))
            block = re.match(r"transformer\.resblocks\.(\d+)", name)
            layer = top if is_last else int(block[1]) + 1 if block else 0
            found[name] = self.layer_decay ** (top - layer)
        return found


class _Transformer(nn.Module):
    """The blocks, under OpenAI's name."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, depth, heads) for _ in range(depth))


class _Block(nn.Module):
    """One transformer block; attributes have OpenAI's names, weights its deviations at first."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), _Attention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), _Mlp(width)
        nn.init.normal_(self.attn.in_proj_weight, std=width**-0.5)
        nn.init.normal_(self.attn.out_proj.weight, std=(2 * depth * width) ** -0.5)
        nn.init.normal_(self.mlp.c_fc.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.mlp.c_proj.weight, std=(2 * depth * width) ** -0.5)

    def forward(self, z: Tensor, num_queries: int | None = None) -> Tensor:
        """[B, N, width] -> [B, num_queries, width]: the first tokens, None = all."""
        z = z[:, :num_queries] + self.attn(self.ln_1(z), num_queries)
        found: Tensor = z + self.mlp(self.ln_2(z))
        return found


class _Mlp(nn.Module):
    """Two layers with the activation q between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, width] -> the same."""
        u = self.c_fc(x)
        found: Tensor = self.c_proj(u * torch.sigmoid(1.702 * u))
        return found


class _Attention(nn.Module):
    """Self-attention of all tokens, asked by the first ones."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, num_queries: int | None) -> Tensor:
        """[B, N, width] -> [B, num_queries, width]."""
        width = x.shape[-1]
        if num_queries is None:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            weight, bias = self.in_proj_weight, self.in_proj_bias
            q = F.linear(x[:, :num_queries], weight[:width], bias[:width])
            k, v = F.linear(x, weight[width:], bias[width:]).chunk(2, dim=-1)
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


def resize_positions(positions: Tensor, grid: tuple[int, int], ratio: int = 1) -> Tensor:
    """Position embeddings for another grid of patches: bilinear, no antialias; row 0 is kept.

    Args:
        positions: [1 + rows * columns, D] of a grid of that ratio, or of `grid` itself, which is
            kept.
        grid: rows and columns wanted.
        ratio: rows over columns of the grid they were made for.

    Raises:
        MissingWeights: if the grid they were made for is neither of that ratio nor the one wanted.
    """
    count = len(positions) - 1
    if count == grid[0] * grid[1]:
        return positions
    rows = math.isqrt(count * ratio)
    if rows * rows != count * ratio:
        kind = "square grid" if ratio == 1 else f"grid of ratio {ratio}"
        raise MissingWeights(
            f"positional_embedding holds {count} patches: no {kind}, and not the"
            f" {grid[0]}x{grid[1]} of INPUT.SIZE_TRAIN and MODEL.BACKBONE.CLIP.PATCH, STRIDE."
        )
    made_for = positions[1:].T.reshape(1, -1, rows, rows // ratio)
    resized = F.interpolate(made_for, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], resized[0].flatten(1).T])


#: timm's name of a `vit_*_clip_quickgelu_*` -> OpenAI's.
_OF_TIMM = (
    (r"cls_token", "class_embedding"),
    (r"pos_embed", "positional_embedding"),
    (r"patch_embed\.proj", "conv1"),
    (r"norm_pre", "ln_pre"),
    (r"norm(?=\.)", "ln_post"),
    (r"head\.weight", "proj"),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"transformer.resblocks.\1.attn.in_proj_"),
    (r"blocks\.(\d+)\.attn\.proj", r"transformer.resblocks.\1.attn.out_proj"),
    (r"blocks\.(\d+)\.norm(\d)", r"transformer.resblocks.\1.ln_\2"),
    (r"blocks\.(\d+)\.mlp\.fc1", r"transformer.resblocks.\1.mlp.c_fc"),
    (r"blocks\.(\d+)\.mlp\.fc2", r"transformer.resblocks.\1.mlp.c_proj"),
)


def clip_weights(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A `ClipTower`'s weights, float32, inside a checkpoint; what is not the tower's is left out.

    Args:
        found: state dict of OpenAI's CLIP (the text tower is dropped) or of its image tower alone,
            of timm's `vit_*_clip_quickgelu_*`, of PCL-CLIP ("image_encoder."), or of a fastreid
            model ("backbone."); with or without "module.".

    Raises:
        MissingWeights: if it is none of these.
    """
    names = {re.sub(r"^module\.", "", name): weight for name, weight in found.items()}
    for prefix in ("visual.", "image_encoder.", "backbone."):
        inside = {k.removeprefix(prefix): w for k, w in names.items() if k.startswith(prefix)}
        names = inside or names
    if "patch_embed.proj.weight" in names:
        names = _from_timm(names)
    if "conv1.weight" not in names or "ln_pre.weight" not in names:
        raise MissingWeights(
            "It holds no image tower of CLIP: wanted conv1.weight, ln_pre.weight, ..., with or"
            " without visual., image_encoder. or backbone. before them, or timm's names; found"
            f" {', '.join(list(found)[:3])}, ..."
        )
    return {name: weight.float() for name, weight in names.items()}


def _from_timm(names: dict[str, Tensor]) -> dict[str, Tensor]:
    bias = names.pop("head.bias", None)
    if bias is not None and bias.abs().max() > 0:
        raise MissingWeights("head.bias is not 0: CLIP's projection has no bias.")
    renamed = {}
    for name, weight in names.items():
        new = name
        for pattern, replacement in _OF_TIMM:
            new = re.sub(f"^{pattern}", replacement, new)
        if new == "proj":
            weight = weight.T
        renamed[new] = weight.reshape(weight.shape[1:]) if name == "pos_embed" else weight
    if "class_embedding" in renamed:
        renamed["class_embedding"] = renamed["class_embedding"].flatten()
    return renamed


def load_clip(tower: ClipTower, found: Mapping[str, Tensor]) -> str:
    """Loads a checkpoint's image tower, positions resized to the tower's grid.

    Returns:
        A sentence on what was resized and left out.

    Raises:
        MissingWeights: if a weight is missing or has another shape, with its name.
    """
    weights = clip_weights(found)
    old = weights.get("positional_embedding")
    if old is not None:
        weights["positional_embedding"] = resize_positions(old, tower.grid)
    own = tower.state_dict()
    refuse_other_shapes(own, weights, tower.key)
    tower.load_state_dict({name: weights[name] for name in own})
    text = f"{len(own)} weights read, {len(found) - len(own)} others left out"
    if old is not None and len(old) != len(tower.positional_embedding):
        rows, columns = tower.grid
        text += f"; positions resized from {len(old) - 1} patches to {rows}x{columns}, bilinear"
    return text
