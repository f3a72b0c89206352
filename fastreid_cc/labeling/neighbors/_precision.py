"""The product behind the search, in float32 or bfloat16, with a proven bound on its error.

For unit rows x, y with stored forms x', y': |x.y - x'.y'| <= |x - x'| |y| + |x'| |y - y'|
(Cauchy-Schwarz), the norms being computed, not assumed. Summing D products in float32 in any order
adds at most D 2^-24 |x'| |y'| (Higham 2002, section 3.1), and rounding the sum v to bfloat16
at most min(2^-8 |v|, 2^-9) for |v| up to 1 (larger ones are cut to 1, which never adds error).
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from ..kernels import jit, run_chunks


@jit
def to_bfloat16(start, stop, features, bits, lost):
    """bits[i]: row i rounded to bfloat16 (nearest, ties to even); lost[i]: norm of the rest."""
    one, low, keep = np.int32(1), np.int32(0x7FFF), np.int32(-0x10000)
    for i in range(start, stop):
        exact = features[i].view(np.int32)
        rounded = np.empty(exact.shape[0], np.int32)
        for d in range(exact.shape[0]):
            rounded[d] = (exact[d] + low + ((exact[d] >> np.int32(16)) & one)) & keep
            bits[i, d] = rounded[d] >> np.int32(16)
        near = rounded.view(np.float32)
        total = np.float32(0)
        for d in range(exact.shape[0]):
            gap = features[i, d] - near[d]
            total += gap * gap
        lost[i] = np.sqrt(total)


@jit
def to_ordered16(bits):
    """Turns bfloat16 bit patterns into i16 that compare as the values do, in place."""
    for b in range(bits.shape[0]):
        for c in range(bits.shape[1]):
            bits[b, c] ^= (bits[b, c] >> np.int16(15)) & np.int16(0x7FFF)


class Operand:
    """Unit rows [N, D] as they are multiplied, and the error bound of each row's products.

    Args:
        features: f32 [N, D], unit rows.
        low: multiply in bfloat16.

    Memory: bfloat16 keeps a copy, 2 N D bytes; float32 none.
    """

    def __init__(self, features: Tensor, low: bool) -> None:
        self.low = low
        self.rows = features
        lost = np.zeros(len(features), np.float32)
        if self.low:
            bits = np.empty(features.shape, np.int16)
            run_chunks(to_bfloat16, len(features), features.numpy(), bits, lost)
            self.rows = torch.from_numpy(bits).view(torch.bfloat16)
        size = features.shape[1]
        summing = 1.05 * (size + 8) * 2.0**-24
        self.rounding = np.float32(2.0**-8 if self.low else 0.0)
        worst = float(lost.max(initial=0.0))
        errors = 1.01 * (lost + worst) + summing + 1e-6  # 1e-6: rows are unit to rounding
        self.errors = errors.astype(np.float32)

    def product(self, left: Tensor, right: range, scratch: threading.local) -> np.ndarray:
        """left [a, D] times rows `right`: f32 [a, b], or ordered i16, in the thread's buffer."""
        a, b = len(left), len(right)
        buffer = getattr(scratch, "buffer", None)
        if buffer is None or buffer.numel() < a * b:
            buffer = scratch.buffer = torch.empty(a * b, dtype=self.rows.dtype)
        out = buffer[: a * b].view(a, b)
        torch.mm(left, self.rows[right.start : right.stop].t(), out=out)
        if not self.low:
            return out.numpy()
        bits = out.view(torch.int16).numpy()
        to_ordered16(bits)
        return bits

    def to_order(self, bars: np.ndarray) -> np.ndarray:
        """Float32 bars as what `product` is compared with; rounded down."""
        if not self.low:
            return bars
        bits = bars.view(np.int32)
        return ((bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> 16).astype(np.int16)

    def to_float(self, scores: np.ndarray) -> np.ndarray:
        """What `product` gives, as float32 at most 1."""
        if not self.low:
            return scores
        bits = scores ^ ((scores >> 15) & np.int16(0x7FFF))
        return np.minimum((bits.astype(np.int32) << 16).view(np.float32), np.float32(1))
