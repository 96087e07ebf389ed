"""When, where and with what version a result was measured."""

import datetime
import os
import platform
from pathlib import Path

import alexnet_cli


def environment() -> dict[str, str]:
    """Date, machine and version: they accompany every measured result."""
    machine = f"{os.cpu_count()} cores of {processor()}, {platform.system()}"
    return {"date": datetime.date.today().isoformat(), "machine": machine, "version": alexnet_cli.__version__}


def processor() -> str:
    """The processor's name according to the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
