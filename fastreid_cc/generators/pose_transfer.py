"""The same person in another pose: PN-GAN's generator, trained on pairs of images of one person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..data.poses import canonical_poses, draw_skeleton, pose_map, resize_keypoints
from ..errors import BadConfig
from ..networks.image_translation import PatchJudge, ResidualTranslator
from ..registry import GENERATORS
from .adversarial import set_rate, trained_state
from .base import Drawn, Generator, read, to_pixels, to_tensor


@GENERATORS.register("pose_transfer")
class PoseTransfer(Generator):
    """Views of every image in the canonical poses of the set, named <stem>_to_<k>.png, k from 1.

    The generator sees an image and the map of a pose, and learns to give another image of the same
    person that has that pose: L1 distance to it, times `closeness`, and a least-squares loss
    against a discriminator of patches. The pose of the image itself is never an input, so a trained
    generator needs neither poses nor identities of new images (`generate --trained`).

    A pair is an image and another one of the same person, of known pose. Who is on an image is said
    by CC.GENERATE.PEOPLE: identities, pseudo-labels, tracklets. Canonical poses are the means
    of a k-means over the key points of the training images.

    Args:
        height: height of the views, in pixels, a multiple of 4.
        width: width of the views, in pixels, a multiple of 4. Below 56 the discriminator's last
            convolutions get a border.
        channels: of the first convolution of both networks (64 as published).
        blocks: residual blocks of the generator (9 as published).
        pose: "skeleton": a colour picture of the limbs, as published. "maps": a heat map for each
            of the 18 key points.
        views: canonical poses to be made of each image.
        pairs: ordered pairs of a person that are learnt from, at most; of more, so many are drawn.
        steps: steps of the training.
        batch: pairs of a step.
        rate: learning rate of both networks; it falls to 0 over the second half.
        closeness: factor of the L1 distance.

    Memory and cost: the images, 3·height·width bytes each; with 32 channels and 6 blocks 1.97 + 0.7
    million weights, four times kept. At 128x64 a pair passes three times through 1.2 billion
    multiply-adds of the generator and about eight through 70 million of the discriminator.

    Eight pairs are learnt by heart to L1 .043 in 1,400 steps (16 channels, 4 blocks, 64x32, 4 pairs
    a step), but only if each goes both ways: images that are targets and never sources look made to
    the discriminator, and L1 stays at .19. It is so where few images have a pose.

    Source: Qian et al., arXiv:1712.02225; the authors' training script was read: losses, Adam with
    beta (0.5, 0.999), the decay, and that the real images the discriminator sees are the sources.
    Differs: 32 channels and 6 blocks by default; poses are clustered by key points, not by VGG
    features, and a canonical pose is a mean of key points, not of pictures; pairs are capped.

    >>> from fastreid_cc.generators.base import Photos
    >>> views = PoseTransfer(height=32, width=24, channels=2, views=3)
    >>> views.prepare(Photos(["a.png", "b.png"]), seed=1, learns=False)
    >>> views.capacity, views.num_steps
    (6, 20000)
    """

    needs_people = True
    needs_poses = True
    limits = {
        "height": "[32, 1024]",
        "width": "[24, 1024]",
        "channels": "[1, 512]",
        "blocks": "[0, 64]",
        "pose": ("skeleton", "maps"),
        "views": "[1, 100]",
        "pairs": "[1, inf)",
        "steps": "[1, inf)",
        "batch": "[1, 4096]",
        "rate": "(0, 0.1]",
        "closeness": "[0, inf)",
    }

    def __init__(
        self,
        *,
        height: int = 128,
        width: int = 64,
        channels: int = 32,
        blocks: int = 6,
        pose: str = "skeleton",
        views: int = 8,
        pairs: int = 200,
        steps: int = 20000,
        batch: int = 32,
        rate: float = 0.0002,
        closeness: float = 10.0,
    ) -> None:
        self.height, self.width, self.channels, self.blocks = height, width, channels, blocks
        self.pose, self.views, self.pairs, self.steps = pose, views, pairs, steps
        self.batch, self.rate, self.closeness = batch, rate, closeness

    @property
    def num_steps(self) -> int:
        """STEPS."""
        return self.steps

    @property
    def capacity(self) -> int:
        """VIEWS of each image, those of DATASETS.TESTS included if they are asked for."""
        return self.views * len(self.sources)

    def start(self) -> None:
        """Finds the pairs and the canonical poses, and builds both networks."""
        if self.height % 4 or self.width % 4:
            raise BadConfig(
                f"{self.key}.HEIGHT={self.height}, WIDTH={self.width}: both must be multiples of 4."
            )
        self.sources = [*self.photos.paths, *self.photos.shown]
        self._refuse_equal_names()
        self.canonical = np.zeros((self.views, 18, 3), np.float32)
        if self.learns:
            self.poses = self._poses()
            self.found = self._pairs()
            known = np.stack(list(self.poses.values()))
            self.canonical = canonical_poses(known, count=self.views, seed=self.seed % 2**32).poses
        size = self.height, self.width
        ins = 3 + (3 if self.pose == "skeleton" else 18)
        self.maker, self.judge = self.seeded(
            lambda: (
                ResidualTranslator(ins, self.channels, self.blocks).to(self.device),
                PatchJudge(self.channels, size).to(self.device),
            )
        )
        self.optimizers = [
            torch.optim.Adam(part.parameters(), lr=self.rate, betas=(0.5, 0.999))
            for part in (self.maker, self.judge)
        ]

    def _refuse_equal_names(self) -> None:
        counts = Counter(Path(path).stem for path in self.sources)
        stem, count = counts.most_common(1)[0] if counts else ("", 0)
        if count > 1:
            raise BadConfig(
                f"{self.key}: {count} images are called {stem!r}; views are found by the name of"
                " their image. Give them names of their own (a sub-folder is not part of it)."
            )

    def _poses(self) -> dict[int, np.ndarray]:
        """Row -> f32 [18, 3] in pixels of a view, of the training images that have a pose."""
        found = {}
        for row, path in enumerate(self.photos.paths):
            if path in self.photos.poses:
                with Image.open(path) as image:
                    old = image.height, image.width
                size = self.height, self.width
                found[row] = resize_keypoints(self.photos.poses[path], old, size)
        if not found:
            raise BadConfig(
                f"{self.key} needs the pose of images that it learns from; found none of"
                f" {len(self.photos)}. Name their key points by CC.GENERATE.POSES."
            )
        return found

    def _pairs(self) -> np.ndarray:
        """i64 [M, 2], (image, another one of the same person, with a pose)."""
        people = self.photos.people
        if people is None:
            raise BadConfig(f"{self.key} needs CC.GENERATE.PEOPLE: pairs are of one person.")
        rng, parts = np.random.default_rng((self.seed, 3)), []
        posed = np.isin(np.arange(len(people)), list(self.poses))
        for person in np.unique(people[people >= 0]):
            own = np.flatnonzero(people == person)
            targets = own[posed[own]]
            if not len(targets):
                continue
            chosen = np.arange(len(own) * len(targets))
            if len(chosen) > 4 * self.pairs:
                chosen = np.unique(rng.integers(len(chosen), size=4 * self.pairs))
            first, second = own[chosen // len(targets)], targets[chosen % len(targets)]
            grid = np.stack([first, second], 1)[first != second]
            parts.append(grid[np.sort(rng.permutation(len(grid))[: self.pairs])])
        found = np.concatenate(parts) if parts else np.empty((0, 2), np.int64)
        if not len(found):
            raise BadConfig(
                f"{self.key} learns from two images of one person, one with a known pose; found no"
                f" such pair among {len(people)} images of {len(parts)} people known, {posed.sum()}"
                " of them with a pose. See CC.GENERATE.PEOPLE and CC.GENERATE.POSES."
            )
        return found

    def _maps(self, poses: np.ndarray) -> Tensor:
        """[B, 3 or 18, H, W] in -1..1 of key points f32 [B, 18, 3]."""
        size = self.height, self.width
        if self.pose == "skeleton":
            drawn = np.stack([np.asarray(draw_skeleton(pose, size)) for pose in poses])
            return to_tensor(drawn, self.device)
        maps = pose_map(poses, size).astype(np.float32)
        return torch.from_numpy(maps).to(self.device) * 2 - 1

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Improves the discriminator, then the generator."""
        for optimizer in self.optimizers:
            set_rate(optimizer, self.rate, step, self.steps)
        chosen = self.found[self.drawn(step).integers(len(self.found), size=self.batch)]
        source, target = (
            to_tensor(self.photos.pixels(rows, self.height, self.width), self.device)
            for rows in chosen.T
        )
        maps = self._maps(np.stack([self.poses[row] for row in chosen[:, 1].tolist()]))
        made = self.maker(torch.cat([source, maps], 1))

        judged = _asked(self.judge(source), 1.0) + _asked(self.judge(made.detach()), 0.0)
        self.optimizers[1].zero_grad()
        judged.backward()
        self.optimizers[1].step()

        distance, fooled = F.l1_loss(made, target), _asked(self.judge(made), 1.0)
        self.optimizers[0].zero_grad()
        (fooled + self.closeness * distance).backward()
        self.optimizers[0].step()
        return {"L1": distance.detach(), "judge": judged.detach(), "maker": fooled.detach()}

    @torch.no_grad()
    def in_poses(self, pixels: np.ndarray, poses: np.ndarray) -> np.ndarray:
        """Images u8 [B, HEIGHT, WIDTH, 3] in poses f32 [B, 18, 3], key points in their pixels."""
        seen = torch.cat([to_tensor(pixels, self.device), self._maps(poses)], 1)
        return to_pixels(self.maker(seen))

    def draw(self, numbers: Sequence[int]) -> list[Drawn]:
        """View n is image n // VIEWS in pose n % VIEWS."""
        rows = [int(number) // self.views for number in numbers]
        kinds = [int(number) % self.views for number in numbers]
        size = self.height, self.width
        images = {row: read(self.sources[row], *size) for row in set(rows)}
        made = self.in_poses(np.stack([images[row] for row in rows]), self.canonical[kinds])
        paths = [self.sources[row] for row in rows]
        return [
            Drawn(f"{Path(path).stem}_to_{kind + 1}.png", view, (path,), f"pose {kind + 1}")
            for path, kind, view in zip(paths, kinds, made, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizers, canonical poses."""
        return {**trained_state(self._trained()), "canonical": torch.from_numpy(self.canonical)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`."""
        for name, part in self._trained().items():
            part.load_state_dict(state[name])
        if tuple(state["canonical"].shape) != self.canonical.shape:
            raise ValueError(f"{len(state['canonical'])} canonical poses, wanted {self.views}")
        self.canonical = state["canonical"].numpy().copy()

    def _trained(self) -> dict[str, Any]:
        return {
            "maker": self.maker,
            "judge": self.judge,
            "maker_optimizer": self.optimizers[0],
            "judge_optimizer": self.optimizers[1],
        }


def _asked(scores: Tensor, wanted: float) -> Tensor:
    return F.mse_loss(scores, torch.full_like(scores, wanted))
