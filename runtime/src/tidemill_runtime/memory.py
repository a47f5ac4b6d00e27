"""What processes use of memory, from /proc. Used by the agent, about four times a second."""

from __future__ import annotations

import os
from collections.abc import Iterable

KEEPER = "tidemill-keeper"
"""The name of processes that end what a model has started when its worker is gone (`models.keeper`)."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes(pid: int) -> int:
    """Resident memory less what is shared with files; 0 for a process that is gone. Cheap, and a little too high after
    a fork.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES


def exact_bytes(pid: int) -> int:
    """Memory of the process's own, with what forks share counted once. Costs milliseconds in a large process."""
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
                    total += int(line.split()[1]) * 1024
    except OSError:
        return resident_bytes(pid)
    return total or resident_bytes(pid)


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for each in found:
        found += _children(each)
    return found


def killable(pid: int) -> list[int]:
    """The process and all that descend from it, but for keepers and what is below them: they end that themselves, and
    whoever killed one halfway through would leave the rest to nobody.
    """
    found = [pid]
    for each in found:
        found += [child for child in _children(each) if not _is_keeper(child)]
    return found


def _is_keeper(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().strip() == KEEPER.encode()
    except OSError:
        return False


def _children(pid: int) -> Iterable[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                yield from map(int, file.read().split())
        except OSError:
            continue
