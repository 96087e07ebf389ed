"""Memory: settings of the C library's allocator, how much this process had at most, and how much there is."""

import ctypes
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

# Parameters of glibc's mallopt(3)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the kernel. Does nothing on other C libraries.

    On a CPU, every step of the network allocates the same few hundred megabytes. By default glibc maps and unmaps them
    each time and the kernel clears every page again, which takes a third of a training step.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 << 20)


def reset_peak_memory() -> None:
    """Let `peak_memory` count from now on. Where the system cannot do that, it goes on from the process's start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """The most memory that this process had resident, in bytes; None if the system does not tell."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def total_memory() -> int | None:
    """The memory that this process may use, in bytes: the machine's, or its container's; None if nobody tells."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
    with suppress(OSError, ValueError):  # no container, or "max": no limit
        return min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory
