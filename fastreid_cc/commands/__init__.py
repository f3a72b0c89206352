"""The subcommands of `python -m fastreid_cc`; each module has `main(argv) -> exit status`."""
