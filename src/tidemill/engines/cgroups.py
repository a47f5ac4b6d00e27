"""Control groups for instances, where the server may make them: limits that hold, and a kill that nothing escapes.

Used by the process engine. Works with version 1 (a hierarchy for each controller), version 2, and both at once. A
server that may not write there gets no groups, and the engine does with what /proc offers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PERIOD_US = 100_000
_REMOVE_WITHIN_S = 2.0


@dataclass(frozen=True)
class GroupLimits:
    memory_bytes: int
    millicores: int
    processes: int


@dataclass(frozen=True)
class Hierarchy:
    """One mounted tree. base: the group that this server is in."""

    version: int
    base: Path


def hierarchies() -> list[Hierarchy]:
    """Those in which groups can be made under the server's own."""
    own = _own_groups()
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mount_root, mount_point = left.split()[3:5]
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            found.append(Hierarchy(2, _inside(mount_point, mount_root, own.get("", "/"))))
        elif kind == "cgroup":
            names = {"memory", "pids", "cpu"} & set(options.split(","))
            if names:
                found.append(Hierarchy(1, _inside(mount_point, mount_root, own.get(min(names), "/"))))
    ours = [one for one in found if os.access(one.base, os.W_OK) and os.access(one.base / "cgroup.procs", os.W_OK)]
    for one in ours:
        if one.version == 2:
            _hand_on_controllers(one.base)
    return ours


def make(hierarchies: Iterable[Hierarchy], name: str, limits: GroupLimits) -> list[Path]:
    """Makes a group called `name` in each hierarchy; those that exist are used. A hierarchy that refuses is skipped."""
    made = []
    for one in hierarchies:
        folder = one.base / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            continue
        _limit(one, folder, limits)
        made.append(folder)
    return made


def members(groups: Iterable[Path]) -> set[int]:
    """Pids in any of the groups."""
    pids: set[int] = set()
    for group in groups:
        with contextlib.suppress(OSError):  # the group is gone
            pids.update(int(word) for word in (group / "cgroup.procs").read_text().split())
    return pids


def kill(groups: list[Path]) -> None:
    """SIGKILL to everybody inside. Nobody can fork away: cgroup.kill covers that, or a limit of no more processes."""
    for group in groups:
        with contextlib.suppress(OSError):
            (group / "cgroup.kill").write_text("1")
            return
    for group in groups:
        with contextlib.suppress(OSError):
            if (group / "pids.max").exists():
                (group / "pids.max").write_text("0")
    for pid in members(groups):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove(groups: list[Path]) -> bool:
    """Kills what is inside and removes the groups. False: something in them does not die (waits on a device)."""
    until = time.monotonic() + _REMOVE_WITHIN_S
    while members(groups):
        kill(groups)
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    for group in groups:
        while group.exists():
            try:
                group.rmdir()
            except OSError:  # the kernel takes a moment after the last process
                if time.monotonic() > until:
                    return False
                time.sleep(0.002)
    return True


def out_of_memory_kills(groups: Iterable[Path]) -> int:
    """How many processes the kernel has killed for the groups' memory limits."""
    for group in groups:
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                for line in (group / name).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
    return 0


def _own_groups() -> dict[str, str]:
    """Controller → path of the server's group; the key of version 2 is ""."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own[name] = path
    return own


def _inside(mount_point: str, mount_root: str, path: str) -> Path:
    """The folder of a group's path, where only a part of the hierarchy may be mounted (containers)."""
    if mount_root != "/" and path.startswith(mount_root):
        path = path[len(mount_root) :]
    return Path(mount_point) / path.lstrip("/")


def _hand_on_controllers(folder: Path) -> None:
    """Lets the groups below `folder` have limits, in version 2.

    Refused where the folder itself holds processes and is not the root: then groups serve for killing only.
    """
    with contextlib.suppress(OSError):
        offered = (folder / "cgroup.controllers").read_text().split()
        for name in ("memory", "pids", "cpu"):
            if name in offered:
                with contextlib.suppress(OSError):
                    (folder / "cgroup.subtree_control").write_text(f"+{name}")


def _limit(hierarchy: Hierarchy, folder: Path, limits: GroupLimits) -> None:
    quota_us = max(1000, limits.millicores * _PERIOD_US // 1000)
    values = (
        {
            "memory.max": str(limits.memory_bytes),
            "pids.max": str(limits.processes),
            "cpu.max": f"{quota_us} {_PERIOD_US}",
        }
        if hierarchy.version == 2
        else {
            "memory.limit_in_bytes": str(limits.memory_bytes),
            "pids.max": str(limits.processes),
            "cpu.cfs_period_us": str(_PERIOD_US),
            "cpu.cfs_quota_us": str(quota_us),
        }
    )
    for name, value in values.items():
        if (folder / name).exists():
            with contextlib.suppress(OSError):  # a limit above the parent's is refused: the parent's holds then
                (folder / name).write_text(value)
