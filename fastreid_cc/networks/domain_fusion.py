"""Fusion of domains through agents: one node per domain, two graph convolutions (MDIF)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import Part


class DomainFusion(Part, nn.Module):
    """Adds to every image what its domain's agent has learnt from the other domains' agents.

    An agent is the attention-weighted mean of its domain's images in the batch. First convolution:
    agents exchange among themselves, images keep to themselves. Second: each image also hears the
    agent of its domain. Both with symmetric normalisation, D^-1/2 A D^-1/2.

    Evaluation uses running agents and the number of images per domain of the last training step, so
    an image's result does not depend on the images beside it.

    Args:
        size: D.
        num_domains: S + 1, the target (domain 0) and S sources.
        momentum: weight of a domain's old running agent in a step.

    Attributes:
        agents: f32 [S + 1, D], running agents.
        counts: f32 [S + 1], images of each domain in the last training step.

    Cost: two products [B, D] x [D, D]. Source: Bai et al., Unsupervised Multi-Source Domain
    Adaptation for Person Re-Identification, CVPR 2021 (MDIF). Differs from the one public
    implementation: attention by softmax (there by division by the sum, which may be 0), and the
    degree of an agent in evaluation.
    """

    key = "MODEL.HEADS.MDIF"
    limits = {"momentum": "[0, 1]"}
    agents: Tensor
    counts: Tensor

    def __init__(self, size: int, num_domains: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        if num_domains < 1:
            raise ValueError(f"num_domains={num_domains} must be at least 1.")
        self.momentum = momentum
        self.attention = nn.Linear(size, 1)
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        for layer in (self.first, self.second):
            bound = 1 / math.sqrt(size)
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.uniform_(layer.bias, -bound, bound)
        self.register_buffer("agents", torch.zeros(num_domains, size))
        self.register_buffer("counts", torch.zeros(num_domains))

    def forward(self, x: Tensor, domains: Tensor | None = None) -> Tensor:
        """Fused features, [B, D].

        Args:
            x: [B, D], pooled features.
            domains: i64 [B], 0 = target; None = all target.
        Mutates `agents` and `counts` in training.
        """
        domains = x.new_zeros(len(x), dtype=torch.int64) if domains is None else domains
        member = F.one_hot(domains.to(x.device), len(self.agents)).to(x.dtype)  # [B, S + 1]
        agents, counts = self.agents.to(x.dtype), self.counts.to(x.dtype)
        if self.training:
            agents = self._agents(x, member)
            counts = member.sum(0)
            self._remember(agents.detach(), counts)
        return x + self._convolve(x, agents, counts, domains)

    def _agents(self, x: Tensor, member: Tensor) -> Tensor:
        """Attention-weighted means, [S + 1, D]; the running agent where a domain has no image."""
        scores = self.attention(x).masked_fill(member == 0, -torch.inf)  # [B, S + 1]
        present = member.any(0)
        weights = scores.masked_fill(~present, 0.0).softmax(0)
        return torch.where(present[:, None], weights.T @ x, self.agents.to(x.dtype))

    @torch.no_grad()
    def _remember(self, agents: Tensor, counts: Tensor) -> None:
        is_first = (self.counts == 0)[:, None]
        moved = self.momentum * self.agents + (1 - self.momentum) * agents
        fresh = torch.where(is_first, agents.to(self.agents), moved.to(self.agents))
        seen = counts > 0
        self.agents.copy_(torch.where(seen[:, None], fresh, self.agents))
        self.counts.copy_(torch.where(seen, counts.to(self.counts), self.counts))

    def _convolve(self, x: Tensor, agents: Tensor, counts: Tensor, domains: Tensor) -> Tensor:
        """The images' rows of A2 (LeakyReLU(A1 X W1 + b1) W2 + b2), [B, D].

        A1 is the identity for images and 1 / (S + 1) among agents. In A2 an image has degree 2, an
        agent S + 1 and the number of its images.
        """
        num_domains = len(agents)
        mixed = agents.mean(0, keepdim=True)  # every agent's row of A1 X
        images, agent = (self.second(F.leaky_relu(self.first(nodes), 0.2)) for nodes in (x, mixed))
        degrees = num_domains + counts[domains.to(x.device)]
        return images / 2 + agent / (2 * degrees).sqrt()[:, None]
