"""Whether two checkouts train the same bytes: records a hash of every trained tensor, compares.

    python tests/plugin/same_bytes.py record CHECKOUT OUT.json [--only NAME ...] [--jobs 2]
    python tests/plugin/same_bytes.py compare START.json END.json

Both records are made by this one script, on one machine, with one thread a process, of the command
line and the config files of a checkout. The runs, and the tables of what a later checkout names
otherwise, are in same_bytes_cases.py. A record holds the last checkpoint of a run (weights,
optimizer, "cc": labels, refiners, memory, losses of the last steps), the "cc" of the earlier ones,
metrics.json without times, and the images. The case `labels` is what recorded features give.
A memory is in a checkpoint only if the next epoch needs it: between two labellings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from same_bytes_cases import CASES, IGNORED, KEYS, RENAMED, VALUES

HERE = Path(__file__).resolve().parent
RECORDED = HERE.parent / "parity"


class Checkout:
    """A checkout, and how its command line is run."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        where = "import fastreid_cc; print(fastreid_cc.__file__)"
        with tempfile.TemporaryDirectory() as name:
            found = Path(self.run(Path(name), "-c", where).strip())
            assert self.root in found.resolve().parents, f"{found} is not of {self.root}"
            told = self.run(Path(name), "-m", "fastreid_cc", "config", "--json", "--stock")
        self.keys = {entry["key"] for entry in json.loads(told[told.index("{\n") :])["keys"]}

    def start(self, folder: Path, *words: object) -> subprocess.Popen[bytes]:
        """A process of Python in the checkout, with one thread; its words go to log.txt."""
        threads = ("OMP", "MKL", "OPENBLAS", "NUMBA")
        environment = {
            **os.environ, **{f"{name}_NUM_THREADS": "1" for name in threads},
            "PYTHONPATH": f"{self.root}{os.pathsep}{HERE}", "CUDA_VISIBLE_DEVICES": "",
            "FASTREID_DATASETS": str(folder / "data"), "PYTHONHASHSEED": "0",
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, *map(str, words)], env=environment, cwd=self.root,
            stdout=(folder / "log.txt").open("w"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, folder: Path, *words: object) -> str:
        """What it prints; RuntimeError with that if it fails."""
        status = self.start(folder, *words).wait(900)
        told = (folder / "log.txt").read_text()
        if status:
            raise RuntimeError(f"{folder}: exit status {status}\n{told[-6000:]}")
        return told

    def options(self, text: str) -> list[str]:
        """KEY VALUE pairs in the checkout's names; the last of a key wins."""
        found = []
        words = text.split()
        for key, value in dict(zip(words[::2], words[1::2], strict=True)).items():
            for old, (tells, new) in VALUES.items():
                if tells not in self.keys:
                    value = re.sub(rf"\b{old}\b", new, value)
            found += [key if key in self.keys else KEYS.get(key, f"{key}:not-in-KEYS"), value]
        return found

    def train(self, name: str, folder: Path) -> None:
        """Runs a case; its checkpoints are in `folder`/out."""
        config, text, flags = (*CASES[name], "")[:3]
        imports = ["--import", "save_each_rank"] if "--num-gpus" in flags else []
        words = ["-m", "fastreid_cc", *imports, HERE / "stock_train_net.py", "--config-file",
                 self.root / "configs" / config]  # fmt: skip
        if "--num-gpus" in flags:
            with socket.socket() as server:
                server.bind(("127.0.0.1", 0))
                flags += f" --dist-url tcp://127.0.0.1:{server.getsockname()[1]}"
        options = [*self.options(text), "OUTPUT_DIR", folder / "out"]
        if flags == "--resume":
            self.kill_after_epoch(3, folder, *words, *options)
        told = self.run(folder, *words, *flags.split(), *options)
        if flags == "--resume" and not re.search(r"Starting training from epoch [1-9]", told):
            raise RuntimeError(f"did not resume: {told[-3000:]}")

    def kill_after_epoch(self, epoch: int, folder: Path, *words: object) -> None:
        """Starts a run, and SIGKILL once the checkpoint of an epoch is there."""
        child, note = self.start(folder, *words), folder / "out" / "last_checkpoint"
        wanted = f"model_{epoch:04d}.pth"
        while child.poll() is None and not (note.is_file() and wanted in note.read_text()):
            time.sleep(0.005)
        child.kill()
        if child.wait() != -signal.SIGKILL:
            raise RuntimeError(f"ended before it was killed: {folder / 'log.txt'}")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(name, "dtype shape sha256" or the value) of everything in a nested state."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        kind = str(value.dtype).removeprefix("torch.")
        yield name, f"{kind} {list(value.shape)} {hashlib.sha256(plain.tobytes()).hexdigest()}"
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)) and any(
        isinstance(v, (dict, torch.Tensor)) for v in value
    ):
        yield from leaves(dict(enumerate(value)), name)
    else:
        yield name, f"value {digest(repr(value)) if len(repr(value)) > 80 else repr(value)}"


def digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def results(folder: Path) -> Iterator[tuple[str, str]]:
    """Entries of the checkpoints, of metrics.json and of the drawn images."""
    for path in sorted((folder / "out").rglob("*.pth")):
        state = torch.load(path, map_location="cpu", weights_only=True)
        is_last = not re.fullmatch(r"model_\d+", path.stem)
        moments = state.pop("optimizer", None)  # by value: its parameters have numbers, no names
        if is_last and moments:
            yield f"{path.stem}.optimizer", digest(repr(sorted(v for _, v in leaves(moments))))
        kept = state if is_last else {k: v for k, v in state.items() if k != "model"}
        place = path.relative_to(folder / "out").with_suffix("").as_posix()
        yield from leaves(kept, place)
    scalars: dict[str, dict[str, str]] = defaultdict(dict)
    for line in (folder / "out" / "metrics.json").read_text().splitlines():
        entry = json.loads(line, parse_float=str, parse_int=str)
        for key, value in entry.items():
            scalars[key][entry["iteration"]] = value  # a resumed run says some again
    yield from ((f"metrics/{name}", digest(repr(values))) for name, values in scalars.items())
    images = [p for p in (folder / "data").rglob("*") if p.suffix in (".jpg", ".png")]
    yield "images", digest(repr(sorted(digest(path.read_bytes()) for path in images)))


def record(checkout: Checkout, name: str, folders: list[Path]) -> dict[str, str]:
    """The entries of one case."""
    start, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix=f"same-bytes-{name}-"))
    try:
        if name == "labels":
            checkout.run(folder, HERE / "same_bytes_labels.py", folder / "labels.json", *folders)
            found = json.loads((folder / "labels.json").read_text())
        elif name == "versions":
            names = ("torch", "torchvision", "fastreid", "numpy", "scipy", "numba", "infomap")
            found = {package: version(package) for package in names}
            found |= {
                "python": platform.python_version(),
                "cpu": torch.backends.cpu.get_cpu_capability(),
            }
        else:
            checkout.train(name, folder)
            found = dict(results(folder))
    except RuntimeError as error:
        print(f"{name} FAILED: {error}", flush=True)
        return {}
    finally:
        shutil.rmtree(folder)
    print(f"{name:24} {len(found):6} entries {time.monotonic() - start:6.1f} s", flush=True)
    return {key: found[key] for key in sorted(found) if not IGNORED.search(key)}


def compare(start: dict[str, dict[str, str]], end: dict[str, dict[str, str]]) -> int:
    """Prints what differs, by case; 1 if anything does."""
    whole = {}
    for case, entries in start.items():
        for key, value in entries.items():
            name = f"{case}/{key}"
            for pattern, new in RENAMED:
                name = re.sub(pattern, new, name)
            whole[name] = value
    other = {f"{case}/{key}": value for case, found in end.items() for key, value in found.items()}
    kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in sorted(whole.keys() | other.keys()):
        case, key = name.split("/", 1)
        same = "equal" if whole.get(name) == other.get(name) else "different"
        kind = same if name in whole and name in other else "only in the start"
        kinds[case][kind if name in whole else "only in the end"].append(key)
    for case, found in kinds.items():
        print(f"{case:24}", ", ".join(f"{len(keys)} {kind}" for kind, keys in found.items()))
        for kind in sorted(found.keys() - {"equal"}):
            more = f" ... {len(found[kind]) - 8} more" if len(found[kind]) > 8 else ""
            print(f"    {kind}: {' '.join(found[kind][:8])}{more}")
    empty = [case for record in (start, end) for case, found in record.items() if not found]
    if empty:
        print("failed:", *empty)
    return int(bool(empty) or any(set(found) != {"equal"} for found in kinds.values()))


def main() -> int:
    """Records or compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["record", "compare"])
    parser.add_argument("paths", nargs=2, type=Path)
    parser.add_argument("--only", nargs="+", choices=["versions", "labels", *CASES])
    parser.add_argument("--jobs", type=int, default=1, help="cases side by side")
    parser.add_argument("--recorded", nargs="*", type=Path, default=[], help="more recordings")
    args = parser.parse_args()
    if args.task == "compare":
        first, second = (json.loads(path.read_text()) for path in args.paths)
        return compare(first, second)
    checkout, names = Checkout(args.paths[0]), args.only or ["versions", "labels", *CASES]
    folders = [path.resolve() for path in (RECORDED, *args.recorded)]
    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(lambda name: record(checkout, name, folders), names))
    args.paths[1].write_text(json.dumps(dict(zip(names, found, strict=True)), indent=0) + "\n")
    return int(not all(found))


if __name__ == "__main__":
    sys.exit(main())
