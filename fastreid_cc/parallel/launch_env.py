"""Environment variables by which a process tells those it spawns what to import."""

SCRIPT = "FASTREID_CC_SCRIPT"
IMPORTS = "FASTREID_CC_IMPORT"
