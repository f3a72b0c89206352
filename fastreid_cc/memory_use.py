"""How much memory this process may still take, and what to advise when that is too little."""

from __future__ import annotations

from pathlib import Path


def _read_int(path: str) -> int | None:
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # cgroups say "max" where there is no limit


def available_bytes() -> int | None:
    """Free memory in bytes, under the container's limit if there is one; None where unknown."""
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


def refuse_if_too_large(needed: int, images: int, size: int) -> None:
    """Raises MemoryError with advice if `needed` bytes are more than what is free.

    Raises:
        MemoryError: naming both figures and the ways out.
    """
    free = available_bytes()
    if free is None or needed <= free:
        return
    raise MemoryError(
        f"Labelling {images:,} x {size} features needs about {needed / 1e9:.1f} GB beyond them, "
        f"but {free / 1e9:.1f} GB are free. Use CC.CLUSTER.NAME=infomap (no distances are stored), "
        "lower K1, set CC.NEIGHBORS.EXACT.PRECISION=float32 (no second copy of the features), "
        "reduce the feature size, or free memory."
    )
