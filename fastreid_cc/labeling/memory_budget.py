"""How much memory this process may still take, and what to advise when that is too little."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.I)


def _read_int(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # cgroups say "max" where there is no limit


def available_bytes() -> int | None:
    """Free memory in bytes, under the container's limit if there is one; None where unknown.

    >>> free = available_bytes()
    >>> free is None or free > 0
    True
    """
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except OSError:
        pass
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        most, now = _read_int(limit), _read_int(used)
        if most is not None and now is not None and most < 1 << 60:
            limits.append(max(0, most - now))
    return min(limits) if limits else None


WAYS_OUT = (
    "Use CC.CLUSTER.NAME=infomap (no distances are stored), lower CC.DISTANCE.JACCARD.K1, set"
    " CC.NEIGHBORS.EXACT.PRECISION=float32 (no second copy of the features), reduce the feature"
    " size, or free memory."
)


def refuse_if_too_large(needed: int, images: int, size: int) -> None:
    """Raises MemoryError with advice if `needed` bytes are more than what is free.

    Args:
        needed: estimated bytes beyond the features.
        images, size: N and D, for the message.
    Raises:
        MemoryError: naming both figures and the ways out.

    >>> refuse_if_too_large(1, images=100, size=128)
    """
    free = available_bytes()
    if free is None or needed <= free:
        return
    raise MemoryError(
        f"Labelling {images:,} x {size} features needs about {needed / 1e9:.1f} GB beyond them, "
        f"but {free / 1e9:.1f} GB are free. {WAYS_OUT}"
    )


@contextlib.contextmanager
def explain_out_of_memory(images: int, size: int) -> Iterator[None]:
    """Inside, an allocation that fails is a MemoryError with the ways out.

    numpy raises MemoryError, torch a RuntimeError of its own on the CPU and OutOfMemoryError on a
    GPU.

    Raises:
        MemoryError: naming what was asked for and the ways out.

    >>> with explain_out_of_memory(images=100, size=128):
    ...     raise MemoryError("7 GiB")
    Traceback (most recent call last):
    MemoryError: Labelling 100 x 128 features ran out of memory: 7 GiB Use CC.CLUSTER.NAME=info...
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, RuntimeError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        if WAYS_OUT in text:
            raise
        raise MemoryError(
            f"Labelling {images:,} x {size} features ran out of memory: {text[:300]} {WAYS_OUT}"
        ) from error
