"""What the processor is good at, and how a process is set up for it."""

from __future__ import annotations

import ctypes

import llvmlite.binding
import torch

_MAPPED_MAX, _TRIM_THRESHOLD, _TOP_PAD = -4, -1, -2  # of malloc.h


def keep_freed_memory() -> bool:
    """Lets glibc's malloc reuse freed blocks of any size; False where there is no glibc.

    By default it gives a block above 32 MB back to the system when it is freed, and every map of
    the next step costs a page fault for each 4 KB: on a virtual machine 10 µs, longer than its
    computing. A step of OSNet x0.25 (64 images of 256x128, one thread) took 1.6 s in place of 2.6,
    one of ResNet18 (64x32) 0.58 s in place of 0.72. No value changes. The process keeps what it
    needed at its peak, more where blocks differ much in size; 2,349 MB in place of 2,343 there.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    options = {_MAPPED_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 64 << 20}
    return all([set_option(name, value) for name, value in options.items()])


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones.

    AMX does, and AVX-512's instructions do on AMD (Zen 4); on Intel those alone take twice as long
    as float32 (Emerald Rapids without AMX: 90 against 168 GFLOP/s a core).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    amx, avx512 = (
        bool(getattr(torch.cpu, probe, bool)())
        for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return amx or (avx512 and llvmlite.binding.get_host_cpu_name().startswith("znver"))
