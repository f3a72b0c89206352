"""Fusion of domains through agents, one node per domain: the published graph (MDIF), and ours."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import Part


class DomainFusion(Part, nn.Module):
    """Adds to every image what the domains' agents say; an agent is a mean of a domain's images.

    The mean is weighted by attention. With f(x) = W2 LeakyReLU(W1 x + b1) + b2, an image becomes
    x + f(x) / 2 + what it hears:

    "agents", as published: first convolution: agents exchange among themselves, images keep to
    themselves; second: each image also hears the agent of its domain; both with symmetric
    normalisation, D^-1/2 A D^-1/2. **Under a neck this fuses nothing.** The agents are joined
    fully, so after the first convolution each carries the same vector m, and an image of a domain
    with n images hears f(m) / sqrt(2 (S + 1 + n)): one constant for the domain, which the batch
    norm that follows, one for each domain, subtracts. The attention gets no gradient, and what is
    left is x + f(x) / 2 with losses of its own. Where domains share a batch norm the same holds if
    they have equally many images in a batch.

    "similarity", ours and not the paper's: an image hears the agents of all domains, f(agent) each,
    half their mean by weights softmax(cosine / temperature). Cosines are taken after the mean of
    the agents is subtracted from image and agents, for pooled features, being positive, are alike
    otherwise. So what is heard differs from image to image, and no neck subtracts it.

    Evaluation uses running agents and the number of images per domain of the last training step, so
    an image's result does not depend on the images beside it.

    Args:
        size: D.
        num_domains: S + 1, the target (domain 0) and S sources.
        fusion: "agents" (published, fuses nothing under a neck) or "similarity" (ours).
        momentum: weight of a domain's old running agent in a step.
        temperature: divides the cosines of fusion "similarity".

    Attributes:
        agents: f32 [S + 1, D], running agents.
        counts: f32 [S + 1], images of each domain in the last training step.

    Cost: two products [B, D] x [D, D]. Source: Bai et al., Unsupervised Multi-Source Domain
    Adaptation for Person Re-Identification, CVPR 2021 (MDIF). Differs from the one public
    implementation: attention by softmax (there by division by the sum, which may be 0), and the
    degree of an agent in evaluation.
    """

    key = "MODEL.HEADS.MDIF"
    limits = {
        "fusion": ("agents", "similarity"),
        "momentum": "[0, 1]",
        "temperature": "(0, inf)",
    }
    agents: Tensor
    counts: Tensor

    def __init__(
        self,
        size: int,
        num_domains: int,
        *,
        fusion: str = "agents",
        momentum: float = 0.9,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if num_domains < 1:
            raise ValueError(f"num_domains={num_domains} must be at least 1.")
        self.fusion, self.momentum, self.temperature = fusion, momentum, temperature
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
        own = self._transform(x)
        if self.fusion == "similarity":
            heard = self._weights(x, agents) @ self._transform(agents) / 2
        else:
            heard = self._from_own_agent(agents, counts, domains)
        return x + (own / 2 + heard)

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

    def _transform(self, nodes: Tensor) -> Tensor:
        """W2 LeakyReLU(W1 x + b1) + b2 of each node, [M, D]."""
        found: Tensor = self.second(F.leaky_relu(self.first(nodes), 0.2))
        return found

    def _from_own_agent(self, agents: Tensor, counts: Tensor, domains: Tensor) -> Tensor:
        """What an image hears of the agent of its domain by A2 f(A1 X), [B, D].

        A1 is the identity for images and 1 / (S + 1) among agents. In A2 an image has degree 2, an
        agent S + 1 and the number of its images.
        """
        mixed = agents.mean(0, keepdim=True)  # every agent's row of A1 X
        degrees = len(agents) + counts[domains.to(agents.device)]
        return self._transform(mixed) / (2 * degrees).sqrt()[:, None]

    def _weights(self, x: Tensor, agents: Tensor) -> Tensor:
        """How much an image hears of each agent, [B, S + 1].

        Rows sum to 1. A domain that no step has held yet, as the target while source labels are
        learnt alone, is not heard.
        """
        seen = (self.counts > 0).to(x.dtype)  # [S + 1]
        middle = seen @ agents / seen.sum().clamp(min=1)
        cosines = F.normalize(x - middle) @ F.normalize(agents - middle).T
        logits = (cosines / self.temperature).masked_fill(seen == 0, -1e30)
        return logits.softmax(1) * seen
