"""Memory that is used again and again should be kept."""

import ctypes
import sys

# glibc's names for what mallopt sets
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Have glibc keep what is freed instead of handing it back to the kernel.

    Each step of the network on a CPU asks for the same few hundred megabytes. By default glibc maps and unmaps them
    every time, and the kernel clears every page anew: a third of a training step. Elsewhere this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 << 20)
