"""A deep convolutional GAN: images of people who do not exist, drawn from noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadConfig
from ..networks.image_translation import small_weights
from ..registry import GENERATORS
from .adversarial import Average, set_rate, trained_state
from .base import Drawn, Generator, to_pixels, to_tensor


@GENERATORS.register("dcgan")
class DCGAN(Generator):
    """Draws images from noise after training against a network that tells them from real ones.

    Noise [B, noise] becomes a map of height/16 x width/16 pixels that is doubled four times by
    transposed convolutions with batch norm and ReLU, tanh at the end; the discriminator goes back
    by strided ones with batch norm and leaky ReLU. Weights start from N(0, 0.02).

    What keeps it stable beside that: Adam with beta 0.5; real and made images in batches of their
    own; real ones are asked to be 0.9 instead of 1 (Salimans et al., arXiv:1606.03498); the rate
    falls to 0 over the second half; what draws is the average of the generator over its steps.
    Real images are mirrored at random. A loss that is not finite ends the training.

    Args:
        height: height of the images, in pixels, a multiple of 16.
        width: width of the images, in pixels, a multiple of 16.
        channels: channels at half the size; doubled with every halving.
        noise: numbers that an image is drawn from.
        steps: steps of the training.
        batch: real images of a step, and made ones.
        rate: learning rate of both networks.
        average: weight of the old average, in the long run; 0 = draw by the last weights.

    Memory and cost at 64x32: the images, 6 KB each; with 64 channels 3.2 + 2.8 million weights, six
    times kept (of the generator seven times), with 32 a quarter. A step passes 64 images about
    twelve times through 52 million multiply-adds (channels 64; a quarter with 32).

    Source: Radford et al., arXiv:1511.06434; as MpRL's generated images (Huang et al., 1801.06742)
    at 64x32 instead of 128x128. Differs: see above; no weights are taken from theirs.

    >>> from fastreid_cc.generators.base import Photos
    >>> gan = DCGAN(height=32, width=16, channels=2)
    >>> gan.prepare(Photos([]), seed=1, learns=False)
    >>> [(made.name, made.pixels.shape) for made in gan.draw([7])]
    [('dcgan_0000007.png', (32, 16, 3))]
    """

    limits = {
        "height": "[32, 1024]",
        "width": "[16, 1024]",
        "channels": "[1, 512]",
        "noise": "[2, 4096]",
        "steps": "[1, inf)",
        "batch": "[2, 4096]",
        "rate": "(0, 0.1]",
        "average": "[0, 1)",
    }

    def __init__(
        self,
        *,
        height: int = 64,
        width: int = 32,
        channels: int = 64,
        noise: int = 100,
        steps: int = 20000,
        batch: int = 64,
        rate: float = 0.0002,
        average: float = 0.999,
    ) -> None:
        self.height, self.width, self.channels, self.noise = height, width, channels, noise
        self.steps, self.batch, self.rate, self.average = steps, batch, rate, average

    @property
    def num_steps(self) -> int:
        """STEPS."""
        return self.steps

    def start(self) -> None:
        """Builds both networks; refuses a size that cannot be halved, and too few photos."""
        if self.height % 16 or self.width % 16:
            raise BadConfig(
                f"{self.key}.HEIGHT={self.height}, WIDTH={self.width}: both must be multiples of 16"
                " to be halved four times."
            )
        if self.learns and len(self.photos) < self.batch:
            raise BadConfig(
                f"{self.key}.BATCH={self.batch} asks for more images than there are to learn from,"
                f" {len(self.photos)}. Lower it, or name more images."
            )
        small = self.height // 16, self.width // 16
        self.maker, self.judge = self.seeded(
            lambda: (
                _maker(self.noise, self.channels, small).to(self.device),
                _judge(self.channels, small).to(self.device),
            )
        )
        self.optimizers = [
            torch.optim.Adam(part.parameters(), lr=self.rate, betas=(0.5, 0.999))
            for part in (self.maker, self.judge)
        ]
        self.drawing = Average(self.maker, self.average)

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Improves the discriminator, then the generator."""
        rng = self.drawn(step)
        for optimizer in self.optimizers:
            set_rate(optimizer, self.rate, step, self.steps)
        rows = rng.choice(len(self.photos), self.batch, replace=False)
        pixels = self.photos.pixels(rows, self.height, self.width)
        mirrored = rng.random(self.batch) < 0.5
        pixels[mirrored] = pixels[mirrored][:, :, ::-1]
        real = to_tensor(pixels, self.device)
        noise = rng.standard_normal((self.batch, self.noise), "float32")
        made = self.maker(torch.from_numpy(noise).to(self.device))

        judged = _asked(self.judge(real), 0.9) + _asked(self.judge(made.detach()), 0.0)
        self.optimizers[1].zero_grad()
        judged.backward()
        self.optimizers[1].step()

        fooled = _asked(self.judge(made), 1.0)
        self.optimizers[0].zero_grad()
        fooled.backward()
        self.optimizers[0].step()
        self.drawing.follow(self.maker, step)
        return {"judge": judged.detach(), "maker": fooled.detach()}

    @torch.no_grad()
    def draw(self, numbers: Sequence[int]) -> list[Drawn]:
        """Images by the averaged generator, in evaluation mode."""
        noise = [self.drawn_for(int(n)).standard_normal(self.noise, "float32") for n in numbers]
        rows = torch.stack([torch.from_numpy(row) for row in noise]).to(self.device)
        made = to_pixels(self.drawing.network.eval()(rows))
        return [
            Drawn(f"dcgan_{int(number):07d}.png", pixels)
            for number, pixels in zip(numbers, made, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Networks, the average, optimizers."""
        return trained_state(self._trained())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`."""
        for name, part in self._trained().items():
            part.load_state_dict(state[name])

    def _trained(self) -> dict[str, Any]:
        return {
            "maker": self.maker,
            "judge": self.judge,
            "average": self.drawing.network,
            "maker_optimizer": self.optimizers[0],
            "judge_optimizer": self.optimizers[1],
        }


def _asked(logits: Tensor, wanted: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, wanted))


def _maker(noise: int, channels: int, small: tuple[int, int]) -> nn.Sequential:
    """[B, noise] -> [B, 3, 16 h, 16 w]."""
    widths = [8 * channels, 4 * channels, 2 * channels, channels]
    layers: list[nn.Module] = [
        nn.Unflatten(1, (noise, 1, 1)),
        nn.ConvTranspose2d(noise, widths[0], small, bias=False),
    ]
    for ins, outs in zip(widths, [*widths[1:], 3], strict=True):
        layers += [nn.BatchNorm2d(ins), nn.ReLU(inplace=True)]
        layers.append(nn.ConvTranspose2d(ins, outs, 4, 2, 1, bias=outs == 3))
    return nn.Sequential(*layers, nn.Tanh()).apply(small_weights)


def _judge(channels: int, small: tuple[int, int]) -> nn.Sequential:
    """[B, 3, 16 h, 16 w] -> logits [B]."""
    widths = [3, channels, 2 * channels, 4 * channels, 8 * channels]
    layers: list[nn.Module] = []
    for ins, outs in zip(widths, widths[1:], strict=False):
        layers.append(nn.Conv2d(ins, outs, 4, 2, 1, bias=ins == 3))
        layers += [nn.BatchNorm2d(outs)] * (ins > 3) + [nn.LeakyReLU(0.2, inplace=True)]
    layers += [nn.Conv2d(widths[-1], 1, small), nn.Flatten(0)]
    return nn.Sequential(*layers).apply(small_weights)
