"""Environment variables that the package reads."""

SCRIPT = "FASTREID_CC_SCRIPT"  # for the processes that a script spawns: the script
IMPORTS = "FASTREID_CC_IMPORT"  # and the modules to import
WITHOUT_REPAIRS = "FASTREID_CC_WITHOUT_REPAIRS"  # repairs of fastreid not to apply, or "all"
TIMEOUT = "FASTREID_CC_TIMEOUT_SECONDS"  # after which a process gives up on one that is gone
