"""What this machine has for instances. Called by bootstrap, where the settings do not say how much they may use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tidemill.ports.engine import Resources

_SHARE_FOR_INSTANCES = 0.9
_V1_UNLIMITED_BYTES = 1 << 60


def machine_resources() -> Resources:
    """All cores that this process may run on, and the memory less a tenth; cgroup limits count."""
    millicores = len(os.sched_getaffinity(0)) * 1000
    quota = _cpu_quota_millicores()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _memory_limit_bytes()
    if limit:
        memory = min(memory, limit)
    return Resources(
        millicores=min(millicores, quota) if quota else millicores,
        memory_bytes=int(memory * _SHARE_FOR_INSTANCES),
    )


def _memory_limit_bytes() -> int | None:
    """As a container sees its own limit; None where there is none."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(path).read_text())
            if limit < _V1_UNLIMITED_BYTES:
                return limit
    return None


def _cpu_quota_millicores() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) * 1000 // int(period)
    with contextlib.suppress(OSError, ValueError):
        quota_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        if quota_us > 0:
            return quota_us * 1000 // int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
    return None
