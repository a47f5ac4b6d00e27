"""Places instances as processes of this machine. Wired by bootstrap; `place`, `reconcile` and `release` call it.

An instance is a session of its own with a folder of its own, and needs no server to live: a server that is killed
and started again finds it by what the instance wrote into its folder. Nothing is held in memory that matters.

    root/instances/<instance>/lock            held from the launch until pid.json is there
                              manifest.json   what the instance is told (0600: holds its token)
                              spawn.json      what `spawn.py` does before it becomes the agent
                              pid.json        who it is: pid, start time, boot
                              kill_at.json    since `terminate`: when patience ends
                              exit_code       noted by the engine that was its parent
                              exit.json       its fault, written by the agent
                              scratch/        home, temporary files and working folder of the instance
    root/logs/<instance>.log                  its output; outlives the folder

Linux only: /proc, pidfds and, where the server may make them, control groups.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from tidemill.domain.errors import EngineFailed
from tidemill.domain.ids import InstanceId
from tidemill.engines import cgroups, logs, procfs, spawn
from tidemill.engines.machine import machine_resources
from tidemill.ports.engine import Engine, Launch, Observation, Resources, Seen, Venv
from tidemill_runtime.contract import EXIT_DONE, EXIT_ORPHANED, EXIT_STOPPED, Fault

_FORGET_WITHIN_S = 2.0
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TZ")
_MARKER = "TIDEMILL_INSTANCE"
_NO_FAULT = frozenset({EXIT_DONE, EXIT_STOPPED, EXIT_ORPHANED})
_RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD)


@dataclass(frozen=True)
class Limits:
    """Of each instance, beside its own CPU and memory.

    memory_slack_bytes: how much more than it asked for the kernel lets it have. The agent measures and acts at the
    limit itself; the kernel is the backstop, for growth that is quicker than measuring.
    log_bytes: of a longer log the middle is dropped.
    """

    open_files: int = 65_536
    file_bytes: int = 1 << 40
    processes: int = 4096
    memory_slack_bytes: int = 64 << 20
    log_bytes: int = 256 << 20


@dataclass(frozen=True)
class _Place:
    """Where things of one instance are."""

    instance: InstanceId
    folder: Path
    log: Path

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def identity(self) -> procfs.Identity | None:
        noted = _read_json(self.folder / "pid.json")
        return procfs.Identity(**noted) if noted else None

    def groups(self) -> list[Path]:
        plan = _read_json(self.folder / "spawn.json")
        return [Path(group) for group in plan["groups"]] if plan else []


class ProcessEngine(Engine):
    name = "process"

    def __init__(
        self,
        root: Path,
        capacity: Resources | None = None,
        limits: Limits = Limits(),
        agent: Sequence[str] = (sys.executable, "-P", "-m", "tidemill_runtime"),
    ) -> None:
        """root: folder for instances and logs, made where missing. capacity None: what the machine has.

        agent: what an instance becomes; the path of its manifest follows.
        """
        self._root = root.absolute()
        self._capacity = capacity or machine_resources()
        self._limits = limits
        self._agent = list(agent)
        self._hierarchies = cgroups.hierarchies()
        self._group_prefix = f"tidemill-{hashlib.sha256(os.fsencode(self._root)).hexdigest()[:8]}-"
        self._reaping = threading.Lock()
        self._cores: dict[InstanceId, list[int]] = {}
        for folder in (self._root / "instances", self._root / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def launch(self, launches: Sequence[Launch]) -> None:
        for one in launches:
            place = self._place(one.instance)
            try:
                place.folder.mkdir(mode=0o700, exist_ok=True)
                with _locked(place.folder) as lock_fd:
                    if place.identity() is None:
                        self._prepare(place, one)
                        _spawn(place, lock_fd)
            except OSError as error:
                raise EngineFailed(f"instance {one.instance} could not be launched: {error}.") from error

    def observe(self, instances: Sequence[InstanceId]) -> list[Observation]:
        return [self._observe(self._place(instance)) for instance in instances]

    def terminate(self, instances: Sequence[InstanceId], grace_s: float) -> None:
        for instance in instances:
            place = self._place(instance)
            identity = place.identity()
            if identity is None:
                continue
            noted = _kill_at_s(place, identity)
            due = _boot_time_s() + grace_s
            if noted is None or due < noted:
                _write_json(place.folder / "kill_at.json", {"boot_time_s": due})
            if noted is None and grace_s > 0:
                procfs.send(identity, signal.SIGTERM)
            if grace_s <= 0:
                self._kill(place, identity)

    def forget(self, instances: Sequence[InstanceId]) -> None:
        for instance in instances:
            place = self._place(instance)
            if not place.folder.exists():
                continue
            with _locked(place.folder):
                self._clear(place)
                self._cores.pop(instance, None)

    def logs(self, instance: InstanceId, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        return logs.read(self._place(instance).log, offset, limit_bytes)

    def capacity(self) -> Resources:
        return self._capacity

    def drop_logs_before(self, epoch_s: float) -> None:
        """Removes logs of forgotten instances that were written to last before `epoch_s`."""
        for log in (self._root / "logs").iterdir():
            kept = (self._root / "instances" / log.stem).exists()
            if not kept and log.stat().st_mtime < epoch_s:
                log.unlink()

    def _place(self, instance: InstanceId) -> _Place:
        return _Place(instance, self._root / "instances" / instance, self._root / "logs" / f"{instance}.log")

    def _prepare(self, place: _Place, launch: Launch) -> None:
        place.scratch.mkdir(mode=0o700, exist_ok=True)
        manifest = place.folder / "manifest.json"
        _write(manifest, msgspec.json.encode(replace(launch.manifest, scratch=str(place.scratch))))
        wanted = cgroups.GroupLimits(
            memory_bytes=launch.resources.memory_bytes + self._limits.memory_slack_bytes,
            millicores=launch.resources.millicores,
            processes=self._limits.processes,
        )
        groups = cgroups.make(self._hierarchies, self._group_prefix + place.instance, wanted)
        venv = launch.venv
        python = [str(venv.folder / "bin" / "python"), *self._agent[1:]] if venv else self._agent
        plan = {
            "argv": [*python, str(manifest)],
            "env": _environment(place, launch.manifest.env, venv),
            "hold": str(venv.lock) if venv else None,
            "scratch": str(place.scratch),
            "groups": [str(group) for group in groups],
            "cores": self._pick_cores(launch),
            "open_files": self._limits.open_files,
            "file_bytes": self._limits.file_bytes,
        }
        _write_json(place.folder / "spawn.json", plan)

    def _pick_cores(self, launch: Launch) -> list[int]:
        """The least taken cores, as many as asked for. Advice: frameworks size their thread pools by it."""
        cores = sorted(os.sched_getaffinity(0))
        count = -(-launch.resources.millicores // 1000)
        if count >= len(cores):
            return []
        taken = [core for picked in list(self._cores.values()) for core in picked]
        self._cores[launch.instance] = sorted(cores, key=taken.count)[:count]
        return self._cores[launch.instance]

    def _observe(self, place: _Place) -> Observation:
        identity = place.identity()
        if identity is None:
            if not place.folder.exists():
                return Observation(place.instance, Seen.UNKNOWN)
            with contextlib.suppress(OSError), _locked(place.folder):  # as soon as a launch under way is over
                identity = place.identity()
            if identity is None:
                return Observation(place.instance, Seen.UNKNOWN)
        with self._reaping:
            running = _reap(place, identity)
        if running:
            logs.bound(place.log, self._limits.log_bytes)
            kill_at = _kill_at_s(place, identity)
            if kill_at is not None and _boot_time_s() >= kill_at:
                self._kill(place, identity)
            return Observation(place.instance, Seen.RUNNING)
        self._cores.pop(place.instance, None)
        self._kill(place, identity)  # what the agent left behind
        return _judge(place)

    def _kill(self, place: _Place, identity: procfs.Identity) -> None:
        """SIGKILL to the agent and to everybody it brought into being."""
        if identity.boot != procfs.boot_id():
            return
        groups = [group for group in place.groups() if group.exists()]
        if groups:
            cgroups.kill(groups)
        else:
            marker = f"\0{_MARKER}={place.instance}\0".encode()
            for one in procfs.belonging(identity.pid, identity.start_ticks, marker):
                procfs.send(one, signal.SIGKILL)
        procfs.send(identity, signal.SIGKILL)

    def _clear(self, place: _Place) -> None:
        """Kills, waits for the end (moments, after SIGKILL), removes. What does not end is left for the next call."""
        identity = place.identity()
        until = time.monotonic() + _FORGET_WITHIN_S
        if identity is not None:
            self._kill(place, identity)
            while _reap(place, identity) and time.monotonic() < until:
                self._kill(place, identity)
                time.sleep(0.002)
        if cgroups.remove(place.groups()):
            _remove_tree(place.folder)


def _spawn(place: _Place, lock_fd: int) -> None:
    """Starts spawn.py with the lock as its standard input.

    posix_spawn, not subprocess: it is safe in a process with threads, costs the same whatever the server's size, and
    nothing else waits for the child and takes its exit code.
    """
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", spawn.__file__, str(place.folder)],
        {},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, lock_fd, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(place.log), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_RESET_SIGNALS,
    )


def _environment(place: _Place, extra: dict[str, str], venv: Venv | None) -> dict[str, str]:
    """Nothing of the server's but the paths that its Python may need: its environment may hold keys."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if venv is not None:  # programs that it brings are found too
        path = f"{venv.folder}/bin:{passed_on.get('PATH', os.defpath)}"
        passed_on |= {"PATH": path, "VIRTUAL_ENV": str(venv.folder)}
    scratch = str(place.scratch)
    own = {"HOME": scratch, "TMPDIR": scratch, "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", _MARKER: place.instance}
    return {**passed_on, **own, **extra, _MARKER: place.instance}


def _reap(place: _Place, identity: procfs.Identity) -> bool:
    """Whether it still runs. Takes and notes its exit code where it is our child."""
    if identity.boot != procfs.boot_id():
        return False
    seen = procfs.stat(identity.pid)
    if seen is None or seen.start_ticks != identity.start_ticks:
        return False
    try:
        pid, status = os.waitpid(identity.pid, os.WNOHANG)
    except ChildProcessError:  # child of a server before this one
        return not seen.dead
    if pid == 0:
        return True
    _write(place.folder / "exit_code", str(os.waitstatus_to_exitcode(status)).encode())
    return False


def _judge(place: _Place) -> Observation:
    """What an ended instance ended of, from all that there is: exit code, the agent's own word, kernel, log."""
    code: int | None = None
    with contextlib.suppress(OSError, ValueError):
        code = int((place.folder / "exit_code").read_text())
    told = _told_fault(place)
    if code is None and told is not None:
        code = told[0]
    if code in _NO_FAULT:
        return Observation(place.instance, Seen.EXITED, code)
    text = logs.evidence(place.log)
    fault = told[1] if told else None
    if fault is None and code in (-signal.SIGKILL, None) and cgroups.out_of_memory_kills(place.groups()):
        fault = Fault("out_of_memory", "The kernel killed the instance at its memory limit.", text)
    if fault is None and code == spawn.FAILED:
        fault = Fault("internal", "The instance could not be set up.", text)
    return Observation(place.instance, Seen.EXITED, code, fault, text)


def _told_fault(place: _Place) -> tuple[int | None, Fault | None] | None:
    """Exit code and fault from the agent's exit.json; None where it wrote none."""
    told = _read_json(place.folder / "exit.json")
    if told is None:
        return None
    code = told.get("code")
    fault = None
    with contextlib.suppress(msgspec.ValidationError):
        fault = msgspec.convert(told.get("fault"), Fault)
    return (code if isinstance(code, int) else None), fault


def _kill_at_s(place: _Place, identity: procfs.Identity) -> float | None:
    """When patience ends, in seconds since the boot that the instance is of; None before `terminate`."""
    noted = _read_json(place.folder / "kill_at.json")
    return float(noted["boot_time_s"]) if noted and identity.boot == procfs.boot_id() else None


def _boot_time_s() -> float:
    """Runs on through restarts of the server, and whatever becomes of the wall clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """The launch lock of an instance: one launch at a time, across threads, servers and a spawn under way."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def _read_json(path: Path) -> dict[str, Any] | None:
    """None where the file is missing, or was cut short by a power loss."""
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, json.dumps(value).encode())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by this user only."""
    new = path.with_name(f"{path.name}.{threading.get_ident()}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
    new.rename(path)


def _remove_tree(folder: Path) -> None:
    """Also where an instance took its own folders' rights away. What cannot be removed is left for the next call."""
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    for path, names, _ in os.walk(folder):
        for name in names:
            inner = os.path.join(path, name)
            if not os.path.islink(inner):
                with contextlib.suppress(OSError):
                    os.chmod(inner, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
