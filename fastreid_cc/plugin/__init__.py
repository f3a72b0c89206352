"""The plug-in: `import fastreid_cc.plugin` once, and stock fastreid runs here and learns without labels."""

from .compat import apply_shims

apply_shims()

# The other parts (config keys, heads, meta-architecture, data sets, hooks) are imported below this line.
