"""For `--import`: networks compute in double precision, so that rounding hides no difference."""

import torch

torch.set_default_dtype(torch.float64)
