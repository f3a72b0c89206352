"""Runs commands one by one, each in a fork of this process, which has imported fastreid once.

A line of JSON in: kind, words, cwd, env, out (a file for what is printed). A number out: the exit
status. So a command costs no start-up, and leaves no trace in the next: no part, no variable.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import sys
import traceback
from typing import Any


class Parsed(SystemExit):
    """The command line was taken."""


def do(kind: str, words: list[str]) -> int:
    """Exit status of one command, or of one piece of Python."""
    if kind == "cli":
        from fastreid_cc import __main__ as cli

        return cli.main(words)
    if kind == "preflight":  # of a training in several processes, which is not started
        from fastreid_cc import boot
        from fastreid_cc.commands import train
        from fastreid_cc.plugin import preflight, training

        boot.activate()
        args = train.parser().parse_intermixed_args(words)
        preflight.preflight(training.read(args), world_size=args.num_gpus * args.num_machines)
        return 0
    if kind == "python":
        from PIL import Image

        given = {"pil_image": Image.new("RGB", (40, 80), (90, 60, 30))}
        exec(compile(words[0], "page", "exec"), given)
        return 0
    if kind == "parse":
        stock = argparse.ArgumentParser.parse_args

        def parse_args(*args: Any, **kwargs: Any) -> Any:
            print("understood:", stock(*args, **kwargs))
            raise Parsed(0)

        argparse.ArgumentParser.parse_args = parse_args  # type: ignore[method-assign]
    sys.argv, sys.path[0] = words, os.path.dirname(words[0])
    runpy.run_path(words[0], run_name="__main__")
    return 0 if kind == "script" else 3


def child(order: dict[str, Any]) -> int:
    """In the fork: where, with what, and into which file."""
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1), os.dup2(out, 2)
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    signal.alarm(120)
    status = 70
    try:
        status = do(order["kind"], order["words"])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    return status


def main() -> None:
    """Serves until its input ends."""
    import matplotlib.figure  # noqa: F401
    import torch

    import fastreid_cc.plugin  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(child(json.loads(line)))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, flush=True)


if __name__ == "__main__":
    main()
