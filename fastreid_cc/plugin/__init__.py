"""The plug-in: `import fastreid_cc.plugin` once, and stock fastreid learns without labels.

Shims first, since fastreid does not import without them; then config keys, head, meta-architecture,
data sets and trainer hooks enter fastreid's registries. A second import does nothing.
"""

# ruff: noqa: E402
from .compat import apply_shims

apply_shims()

from . import adasp_keys, source_folder_nodes, yaml_switches  # noqa: F401  translate
from .loading import augmentation, personx, vehiclex  # noqa: F401  register
from .modeling import backbones, cluster_contrast_head, mdif_head, meta_arch, mutual  # noqa: F401  register
from .preflight import check_before_setup
from .trainer.wrap import add_config_keys, wrap_trainer

add_config_keys()
wrap_trainer()
check_before_setup()
