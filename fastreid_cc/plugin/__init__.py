"""The plug-in: `import fastreid_cc.plugin` once, and stock fastreid learns without labels.

Shims first, since fastreid does not import without them; then config keys, head, meta-architecture,
data sets and trainer hooks enter fastreid's registries. A second import does nothing.
"""

# ruff: noqa: E402
from .compat import apply_shims

apply_shims()

from . import datasets, heads, meta_arch, personx, transforms  # noqa: F401  register
from .engine import add_config_keys, wrap_trainer

add_config_keys(datasets.keys() | transforms.keys())
wrap_trainer()
