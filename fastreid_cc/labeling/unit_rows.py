"""Features as labelling takes them: float32 rows of unit length, or an error that names rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_ROWS = 8192


def unit_rows(features: np.ndarray | Tensor) -> Tensor:
    """Float32 rows of unit length; the input itself if it is that already, else a copy.

    Args:
        features: floating point [N, D].
    Raises:
        ValueError: for another shape or dtype, or naming the rows that are zero or not finite.

    >>> unit_rows(np.array([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    rows = torch.as_tensor(features).detach()
    if rows.ndim != 2 or not rows.dtype.is_floating_point:
        raise ValueError(
            f"features must be floating point [N, D], found {rows.dtype} {list(rows.shape)}"
        )
    norms = torch.cat(
        [torch.linalg.vector_norm(part.double(), dim=1) for part in rows.split(_ROWS)]
        or [torch.empty(0, dtype=torch.float64)]
    )
    bad = torch.nonzero(~torch.isfinite(norms) | (norms < 1e-30))[:, 0].tolist()
    if bad:
        raise ValueError(
            f"features: {len(bad)} of {len(rows)} rows are zero or not finite: rows "
            + ", ".join(map(str, bad[:10]))
            + (", ..." if len(bad) > 10 else "")
        )
    if rows.dtype == torch.float32 and bool(((norms - 1).abs() < 1e-6).all()):
        return rows.contiguous()
    out = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    for at in range(0, len(rows), _ROWS):
        part = slice(at, at + _ROWS)
        out[part] = (rows[part].double() / norms[part, None]).float()
    return out
