"""Turns itself into an instance: notes who it is, takes its limits, gives up its rights, and becomes the agent.

Run by the process engine as a file, `python -I -S spawn.py FOLDER`, in a fresh process: what it does must not
happen between fork and exec of a server with threads. Standard library only, and little of it, because every
millisecond here is one of each launch.

`environments` starts the installer by it too, which is to die with the thread that waits for it (`parent` in the plan).

Its standard input is the launch lock, which it holds until its identity is on disk. So a server that was killed after
the fork finds, once it gets the lock, either a process that it can see or none.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import sys
from typing import Any

FAILED = 120
"""Exit code of an instance that could not be set up; the log says why."""

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def main(folder: str) -> None:
    """Does not come back: the process becomes what spawn.json in `folder` says."""
    write_identity(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.closerange(3, 4096)
    with open(os.path.join(folder, "spawn.json"), "rb") as file:
        plan = json.load(file)
    for group in plan["groups"]:
        with open(os.path.join(group, "cgroup.procs"), "w") as file_:
            file_.write("0")
    os.umask(0o077)
    if plan.get("hold"):
        hold(plan["hold"], plan["argv"][0])
    limit(plan)
    drop_rights()
    if plan.get("parent"):
        die_with(plan["parent"])
    os.chdir(plan["scratch"])
    os.execve(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606 - no shell is wanted


def write_identity(folder: str) -> None:
    """pid.json appears whole or not at all."""
    with open("/proc/self/stat", "rb") as file:
        start_ticks = int(file.read().rpartition(b")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id") as text:
        boot = text.read().strip()
    path = os.path.join(folder, "pid.json")
    with open(path + ".new", "w") as out:
        json.dump({"pid": os.getpid(), "start_ticks": start_ticks, "boot": boot}, out)
    os.rename(path + ".new", path)


def limit(plan: dict[str, Any]) -> None:
    """Takes the limits of the plan, or what is allowed of them."""
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, plan["open_files"]),
        (resource.RLIMIT_FSIZE, plan["file_bytes"]),
    ):
        hard = resource.getrlimit(name)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (allowed, allowed))
    if plan["cores"]:
        os.sched_setaffinity(0, plan["cores"])


def hold(lock: str, program: str) -> None:
    """Keeps the environment that `program` is of for as long as this process or a fork of it lives.

    Raises FileNotFoundError if it was removed before.
    """
    fd = os.open(lock, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    os.set_inheritable(fd, True)
    if not os.path.exists(program):
        raise FileNotFoundError(f"its environment is gone: {program}")


def die_with(parent: int) -> None:
    """SIGKILL when the thread that started this process ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    if os.getppid() != parent:  # it was quicker
        os.kill(os.getpid(), 9)


def drop_rights() -> None:
    """No setuid program gives rights any more; of root's capabilities only that to read anybody's files is left."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        if capability != _CAP_DAC_OVERRIDE:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused without CAP_SETPCAP: then there is none to drop
    keep = 1 << _CAP_DAC_OVERRIDE if os.geteuid() == 0 else 0
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    for kept in (keep, 0):  # a server that has not even that one keeps none
        sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; low words, then high
        if libc.capset(header, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine looks into the log for the evidence
        sys.stderr.write(f"The instance could not be set up: {type(error).__name__}: {error}\n")
        sys.exit(FAILED)
