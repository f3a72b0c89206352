"""fastreid_cc: label-free re-identification for unmodified fastreid.

Importing this package never imports fastreid. `import fastreid_cc.plugin` does, and activates
the plug-in.
"""

__version__ = "0.1.0"
