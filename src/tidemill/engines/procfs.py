"""What /proc tells of processes: which one a pid is, whether it lives, who belongs to it.

Used by the process engine. A pid alone names nobody, because the kernel hands it out again; a pid, the tick at which
the process started and the boot of the machine do.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """One process of one boot. start_ticks: field 22 of /proc/<pid>/stat."""

    pid: int
    start_ticks: int
    boot: str


@dataclass(frozen=True)
class Stat:
    """What /proc/<pid>/stat says, as far as it is of use here. state: one letter; Z and X are dead."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int

    @property
    def dead(self) -> bool:
        return self.state in "ZX"


@cache
def boot_id() -> str:
    """Of the machine's present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat(pid: int) -> Stat | None:
    """None: there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold spaces and parentheses
    return Stat(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def alive(process: Identity) -> bool:
    """Whether it runs still. A zombie does not."""
    if process.boot != boot_id():
        return False
    seen = stat(process.pid)
    return seen is not None and seen.start_ticks == process.start_ticks and not seen.dead


def send(process: Identity, signal_number: int) -> None:
    """Signals exactly this process, never one that took over its pid. A dead one is no error."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if alive(process):  # looked at while the handle pins the pid
            signal.pidfd_send_signal(handle, signal_number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def everyone() -> Iterator[Stat]:
    """All processes that this one can see."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (seen := stat(int(name))) is not None:
            yield seen


def belonging(leader: int, leader_start_ticks: int, marker: bytes) -> list[Identity]:
    """Those of the session that `leader` began, their descendants, and whoever carries `marker` in its environment.

    For machines on which the server may not make cgroups: a process that began a session of its own, dropped its
    environment and lost its parent is not found.
    """
    living = {seen.pid: seen for seen in everyone() if not seen.dead}
    # A session's number is its leader's pid and is not handed out again while anybody is in the session, but another
    # process may have it once the session is empty: it is younger than the leader, and so is all of its session.
    mine = {
        seen.pid
        for seen in living.values()
        if (seen.session == leader and _is_of_leader(living.get(leader), leader_start_ticks))
        or marker in _environment(seen.pid)
    }
    grown = True
    while grown:
        more = {seen.pid for seen in living.values() if seen.parent in mine} - mine
        mine |= more
        grown = bool(more)
    mine.discard(os.getpid())
    return [Identity(pid, living[pid].start_ticks, boot_id()) for pid in sorted(mine)]


def _is_of_leader(now: Stat | None, start_ticks: int) -> bool:
    return now is None or now.start_ticks == start_ticks


def _environment(pid: int) -> bytes:
    try:
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
