"""Sparse pairwise losses: one positive pair per identity (SP-H, SP-LH, AdaSP)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import LOSSES
from .base import PairwiseLoss, masked_logsumexp, softplus, unit


@LOSSES.register()
class AdaSP(PairwiseLoss):
    """Mean over identities of softplus(n - a): softly hardest negative against one sparse positive.

    With S = cosines / temperature and LSE = log-sum-exp: row r_i = LSE over the identity of -S_ij
    (the pair (i, i) included); hard positive h = -LSE r_i; least-hard positive e = LSE -r_i;
    negative n = LSE of S over pairs with one end in the identity. The positive a is h ("sp-h"), e
    ("sp-lh") or alpha·h + (1 - alpha)·e ("adasp"), where alpha is the harmonic mean of the two
    similarities, a constant, 0 where the hard one is negative.

    Args:
        temperature: divides the cosines; the authors' configs have 0.04 for persons, 0.05 for
            vehicles.
        type: the positive: "sp-h" for a small variation within an identity, "sp-lh" for a large
            one, "adasp" for a mixture of the two.

    Any order of labels, group sizes and single images; one identity alone gives 0. Cost: O(B²·D)
    time, a few B² floats. Source: Zhou et al., CVPR 2023, arXiv:2303.18247. Differs from the
    authors' code, which reads positions instead of labels (wrong unless rows come in P equal
    blocks): equal on such blocks; log-sum-exp in float32 instead of exponentials in float64; with
    several processes the batch of all instead of each one's.

    >>> from fastreid_cc.structures import Batch
    >>> x = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    >>> batch = Batch.of(x, torch.tensor([0, 0, 1, 1]))
    >>> AdaSP()(batch), AdaSP(type="sp-h")(batch)
    (tensor(0.0102), tensor(0.0135))
    """

    log_name = "adasp"
    limits = {"temperature": "(0, inf)", "type": ("adasp", "sp-h", "sp-lh")}

    def __init__(self, *, temperature: float = 0.04, type: str = "adasp") -> None:
        super().__init__()
        self.temperature = temperature
        self.kind = type

    def pairwise(self, features: Tensor, labels: Tensor) -> Tensor:
        """Mean over the identities present; every row carries its identity's terms."""
        f, valid = unit(features), labels >= 0
        similarity = f @ f.T / self.temperature  # [B, B]
        same = labels == labels[:, None]
        other = ~same & valid & valid[:, None]

        rows = masked_logsumexp(-similarity, same)
        hard = -masked_logsumexp(rows.expand_as(same), same)
        least_hard = masked_logsumexp(-rows.expand_as(same), same)
        row_negatives = masked_logsumexp(similarity, other)
        negative = masked_logsumexp(row_negatives.expand_as(same), same)

        losses = softplus(negative - self._positive(hard, least_hard))
        share = valid.to(losses) / same.sum(1)  # an identity counts once
        return (losses * share).sum() / share.sum().clamp(min=1e-12)

    def _positive(self, hard: Tensor, least_hard: Tensor) -> Tensor:
        if self.kind == "sp-h":
            return hard
        if self.kind == "sp-lh":
            return least_hard
        with torch.no_grad():
            s_h, s_lh = hard * self.temperature, least_hard * self.temperature
            mixed = (s_h >= 0) & (s_h + s_lh > 0)  # both 0: rows of length 0
            alpha = torch.where(mixed, 2 * s_h * s_lh / torch.where(mixed, s_h + s_lh, 1.0), 0.0)
        return alpha * hard + (1 - alpha) * least_hard
