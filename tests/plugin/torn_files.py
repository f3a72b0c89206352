"""Damaged checkpoint files of a run that was stopped before its last epoch, and what resumes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

Damage = Callable[[Path, np.random.Generator], None]


def _cut(path: Path, length: int) -> None:
    data = path.read_bytes()[:length]
    path.unlink()  # a hard link: the original stays
    path.write_bytes(data)


def _overwrite(path: Path, at: int, new: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(new)] = new
    path.unlink()
    path.write_bytes(data)


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.glob("model_0*.pth"))[::-1]


def _cut_newest(folder: Path, generator: np.random.Generator) -> None:
    newest = _numbered(folder)[0]
    _cut(newest, int(generator.integers(1, newest.stat().st_size)))


def _cut_all(folder: Path, generator: np.random.Generator) -> None:
    for path in folder.glob("*.pth"):
        _cut(path, int(generator.integers(0, path.stat().st_size)))


def _cut_two(folder: Path, generator: np.random.Generator) -> None:
    for path in _numbered(folder)[:2]:
        _cut(path, int(generator.integers(1, path.stat().st_size)))


def _garbage(folder: Path, generator: np.random.Generator) -> None:
    newest = _numbered(folder)[0]
    at = int(newest.stat().st_size * generator.uniform(0.3, 0.7))
    _overwrite(newest, at, generator.bytes(1000))


def _zeros(folder: Path, generator: np.random.Generator) -> None:
    newest = _numbered(folder)[0]
    half = newest.stat().st_size // 2
    _overwrite(newest, half, bytes(half // 2))


def _half_the_labels(folder: Path, generator: np.random.Generator) -> None:
    newest = _numbered(folder)[0]
    state = torch.load(newest, weights_only=True)
    state["cc"]["labels"] = state["cc"]["labels"][::2]
    newest.unlink()
    torch.save(state, newest)


def _tag(content: bytes | None) -> Damage:
    def damage(folder: Path, _: np.random.Generator) -> None:
        (folder / "last_checkpoint").unlink()
        if content is not None:
            (folder / "last_checkpoint").write_bytes(content)

    return damage


#: What is damaged -> (how, epoch the resumed run starts at; None = it says why it does not).
DAMAGES: dict[str, tuple[Damage, int | None]] = {
    "newest cut": (_cut_newest, 3),
    "newest empty": (lambda f, _: _cut(_numbered(f)[0], 0), 3),
    "newest without its last byte": (lambda f, _: _cut(_numbered(f)[0], -1), 3),
    "garbage inside the newest": (_garbage, 3),
    "zeros inside the newest": (_zeros, 3),
    "the two newest cut": (_cut_two, 3),  # model_best is of the third epoch
    "last_checkpoint empty": (_tag(b""), 4),
    "last_checkpoint names nothing": (_tag(b"model_0099.pth"), 4),
    "last_checkpoint is garbage": (_tag(b"\0\xff/\n\xfe" * 9), 4),
    "last_checkpoint is gone": (_tag(None), 4),
    "half of the labels gone": (_half_the_labels, None),
    "every checkpoint cut": (_cut_all, 0),
}


def stopped(whole: Path, root: Path) -> Path:
    """A copy of a finished run as it was before its last epoch, with half a line of metrics."""
    folder = root / "out"
    folder.mkdir()
    for path in whole.glob("*.pth"):
        if path.name != "model_final.pth":
            os.link(path, folder / path.name)
    last = _numbered(folder)[0]
    (folder / "last_checkpoint").write_text(last.name)
    epochs = torch.load(last, weights_only=True)["epoch"] + 1
    lines = (whole / "metrics.json").read_text().splitlines(keepends=True)
    steps = [json.loads(text)["iteration"] for text in lines]
    limit = max(steps) * epochs // (epochs + 1)
    kept = [text for text, step in zip(lines, steps, strict=True) if step < limit]
    (folder / "metrics.json").write_text("".join(kept) + lines[-1][:20])
    return folder


def tear_and_resume(whole: Path, count: int, seed: int, start: Any) -> Iterator[str]:
    """Damages copies of a stopped run and resumes each; one line about each."""
    from kill_and_resume import VARIANTS, resume

    for index, (name, (damage, epoch)) in enumerate(list(DAMAGES.items())[:count]):
        root = Path(tempfile.mkdtemp(prefix=f"torn-{index}-", dir=whole.parent.parent))
        folder = stopped(whole, root)
        damage(folder, np.random.default_rng([seed, index]))
        files = [path.stat() for path in folder.glob("*.pth")]
        damaged = frozenset(file.st_ino for file in files if file.st_nlink == 1)
        # a damaged file whose epoch is not trained again stays as it is
        told = resume(folder, whole, *VARIANTS["plain"], start=start, left=damaged)
        is_clear = '"cc"' in told or "labels" in told
        wanted = f"from epoch {epoch}: equal" if epoch is not None else "FAILED"
        good = told == wanted if epoch is not None else told.startswith(wanted) and is_clear
        shutil.rmtree(root)
        yield f"{name:30} {told} -> {'as it should' if good else f'WRONG, want {wanted}'}"
