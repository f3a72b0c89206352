"""what this machine has and what to do about the rest"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import platform
import re
import sys
from collections import ChainMap
from collections.abc import Iterator
from importlib import metadata
from itertools import chain
from typing import NamedTuple

from .. import __version__, boot
from ..data.published import PUBLISHED
from ..errors import printable
from ..requirements import EXTRAS, FASTREID_COMMAND, NEEDED, install_command
from ._frame import make_parser, print_json

#: Import name -> distributions that hold it, e.g. faiss -> faiss-cpu or faiss-gpu-cu12.
_distributions = functools.cache(metadata.packages_distributions)
SHIPPED = ("50x", "ibn_50x")  # ResNets that the configs of the papers start from


class Check(NamedTuple):
    """One line: state is "ok", "missing" (needed to run), "absent" (not needed) or "look"."""

    group: str
    name: str
    state: str
    text: str


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = make_parser(
        "doctor",
        "Says what is here and what to do about what is not. Status 1 only if something is missing "
        "without which nothing runs; data sets, weights and GPUs are not needed.",
        gives_json=True,
    )
    made.add_argument("--weights", action="store_true", help="list all published weights")
    return made


def check_python() -> Iterator[Check]:
    """Python and the packages that training needs."""
    version = platform.python_version()
    fine = sys.version_info >= (3, 10)
    text = version if fine else f"{version}; 3.10 or newer is needed"
    yield Check("needed", "python", "ok" if fine else "missing", text)
    for group, otherwise, names in (
        ("needed", "missing", NEEDED),
        ("optional", "absent", [n for n in chain(*EXTRAS.values()) if n not in NEEDED]),
    ):
        for name in names:
            found = _version(name)
            yield Check(group, name, "ok" if found else otherwise, found or install_command(name))


def _version(name: str) -> str:
    """Version of an importable package, "" if it is not there."""
    try:
        if importlib.util.find_spec(name) is None:
            return ""
    except ValueError:  # a module without a spec, put into sys.modules by hand
        return ""
    wanted = ChainMap(NEEDED, *EXTRAS.values()).get(name, name)
    installed = [*_distributions().get(name, ()), re.split("[^A-Za-z0-9._-]", wanted)[0]]
    for distribution in installed:  # Python 3.10 finds those alone that list their packages
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return "found, version unknown"


def check_fastreid() -> Iterator[Check]:
    """fastreid, and whether the plug-in can be put into it."""
    yield Check("needed", "fastreid_cc", "ok", __version__)
    try:
        boot.activate()
    except Exception as error:  # noqa: BLE001  whatever it is, that is the finding
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        found = importlib.util.find_spec("fastreid") is not None
        text = f"{kind}{error}" if found else f"{FASTREID_COMMAND}, or a clone on PYTHONPATH"
        yield Check("needed", "fastreid", "missing", " ".join(text.split()))
        return
    where = os.path.dirname(sys.modules["fastreid"].__file__ or "")
    text = f"{_version('fastreid')}, plug-in active, {printable(where)}"
    yield Check("needed", "fastreid", "ok", text)


def check_machine() -> Iterator[Check]:
    """CUDA, processors, memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("machine", "processors", "ok", f"{cores} ({platform.machine()})")
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        yield Check("machine", "memory", "ok", f"{size:.0f} GiB")
    if importlib.util.find_spec("torch") is not None:
        yield from _check_cuda()


def _check_cuda() -> Iterator[Check]:
    import torch

    built = torch.version.cuda
    if not torch.cuda.is_available():
        why = f"torch is built for CUDA {built}, no device or driver" if built else "torch for CPU"
        text = f"{why}; training runs on the CPU. {_driver()}".strip()
        yield Check("machine", "CUDA", "absent", text)
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = f"{torch.cuda.get_device_name(index)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB"
        yield Check("machine", f"CUDA {index}", "ok", f"{name} free, CUDA {built}. {_driver()}")


def _driver() -> str:
    """The NVIDIA driver and the newest CUDA it runs, as far as nvidia-ml-py ([gpu]) tells."""
    try:
        import pynvml

        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        newest = pynvml.nvmlSystemGetCudaDriverVersion()
        pynvml.nvmlShutdown()
    except Exception:  # noqa: BLE001  not installed, or no driver: nothing to tell
        return ""
    name = driver.decode() if isinstance(driver, bytes) else driver
    return f"Driver {name}, good for CUDA up to {newest // 1000}.{newest % 1000 // 10}"


def check_data() -> Iterator[Check]:
    """Public data sets below FASTREID_DATASETS: images found against images published."""
    root = os.environ.get("FASTREID_DATASETS", "datasets")
    state = "ok" if os.path.isdir(root) else "absent"
    yield Check("data", "FASTREID_DATASETS", state, printable(os.path.abspath(root)))
    for known in PUBLISHED:
        found, label = known.count(root), f"{known.name} ({known.folder})"
        wanted = _three(known.counts)
        if found is None:
            place = os.path.join(root, known.folder)
            yield Check("data", label, "absent", f"belongs in {printable(place)}: {wanted}")
        elif found == known.counts:
            yield Check("data", label, "ok", f"{wanted} as published. {known.note}".strip())
        else:
            text = f"found {_three(found)}, published {wanted}. {known.note}".strip()
            yield Check("data", label, "look", text)


def _three(counts: tuple[int, int, int]) -> str:
    train, query, gallery = counts
    return f"train {train:,}, query {query:,}, gallery {gallery:,}"


def check_weights(*, everything: bool) -> Iterator[Check]:
    """Published weights that are here; of those that are not, the ones shipped configs name."""
    if "fastreid_cc.plugin" not in sys.modules:
        yield Check("weights", "published weights", "absent", "fastreid is needed to name them")
        return
    from ..plugin.offline.published_weights import published_weights

    left = 0
    for weights in published_weights():
        name = f"{weights.family} {weights.key}"
        wanted = weights.family == "resnet" and weights.key in SHIPPED
        if weights.is_here:
            yield Check("weights", name, "ok", printable(weights.path))
        elif everything or wanted:
            text = f"place {printable(weights.path)} (from {weights.url})"
            yield Check("weights", name, "absent", text)
        else:
            left += 1
    if left:
        yield Check("weights", "others", "absent", f"{left} more are known: --weights lists them")


def main(argv: list[str]) -> int:
    """Prints all checks; 1 if something needed is missing."""
    args = parser().parse_args(argv)
    checks = [*check_python(), *check_fastreid(), *check_machine(), *check_data()]
    checks += check_weights(everything=args.weights)
    missing = [check.name for check in checks if check.state == "missing"]
    if args.json:
        print_json({"ready": not missing, "checks": [check._asdict() for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:  # not by tabulate, which may be what is missing
            print(f"{check.state:7}  {check.group:8}  {check.name:{width}}  {check.text}")
        print(f"\nnot ready: {', '.join(missing)}" if missing else "\nready to run")
    return 1 if missing else 0
