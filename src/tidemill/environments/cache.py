"""The folder of environments: each built once by whoever comes first, kept while it is used, swept when it is not.

    root/locks/<digest>            flock: exclusive while one is built or removed, shared while it is in use
    root/logs/<digest>.log         what uv said at the last attempt
    root/<digest>/ready.json       written last: names the folder that is complete
    root/<digest>/used             touched at each use
    root/<digest>/<attempt>/       one attempt, built where it stays: an environment cannot be moved

Nothing is held in memory. A process that is killed gives its locks back with its life; what it left half-built is named
by no ready.json, and the next builder or sweep removes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_POLL_S = 0.05
_LOG_S = 7 * 86400.0
_UNUSED_S = 600.0
"""What was handed out within this time is never swept: its instances may be about to start."""


class Cancelled(Exception):
    """Nobody wants the environment any more."""


@dataclass(frozen=True)
class Environment:
    """One that is complete. folder: of the attempt; requirements: its lines, as they were installed.

    seconds: what building took. size_bytes: of its files; those that uv shares with its cache count too.
    """

    digest: str
    folder: Path
    requirements: tuple[str, ...]
    packages: dict[str, str]
    seconds: float
    size_bytes: int
    created: float

    @property
    def venv(self) -> Path:
        return self.folder / "venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"


@dataclass(frozen=True)
class Kept:
    """An environment in a listing. used: when it was handed out last, in seconds since the epoch."""

    environment: Environment
    used: float
    in_use: bool


@dataclass(frozen=True)
class Built:
    """What a builder made of an attempt's folder."""

    packages: dict[str, str]
    requirements: tuple[str, ...]


class Cache:
    """root: made when something is built. limit_bytes: the least recently used go when all together take more."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root.absolute()
        self._limit_bytes = limit_bytes

    def lock_of(self, digest: str) -> Path:
        """The file that who uses an environment holds a shared lock on."""
        return self.root / "locks" / digest

    def log_of(self, digest: str) -> Path:
        return self.root / "logs" / f"{digest}.log"

    def find(self, digest: str) -> Environment | None:
        """The environment, marked as used; None where there is none that is complete."""
        found = self._read(digest)
        if found is not None:
            with contextlib.suppress(OSError):
                (self.root / digest / "used").touch()
        return found

    def hold(self, digest: str) -> tuple[Environment, int] | None:
        """The environment and a descriptor with the lock that keeps it; to be closed, or inherited. None: build it."""
        if not (self.root / digest).is_dir():
            return None
        fd = self._open_lock(digest)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            found = self.find(digest)
            if found is not None:
                return found, fd
        except BlockingIOError:  # it is being built or removed
            pass
        os.close(fd)
        return None

    def provide(
        self,
        digest: str,
        build: Callable[[Path], Built],
        *,
        cancelled: Callable[[], bool],
        waiting: Callable[[], None],
    ) -> Environment:
        """The environment; built here, unless another process or thread does that already: then it is waited for.

        build: fills an empty folder. waiting: told once if another is at it. Raises Cancelled when
        `cancelled` says so, and whatever `build` raises.
        """
        found = self.find(digest)
        if found is not None:
            return found
        fd = self._open_lock(digest)
        try:
            told = False
            while not _try_lock(fd):
                found = self.find(digest)  # done: its builder, or an instance, holds the lock
                if found is not None:
                    return found
                if not told:
                    told = True
                    waiting()
                if cancelled():
                    raise Cancelled
                time.sleep(_POLL_S)
            found = self.find(digest)
            return found if found is not None else self._build(digest, build)
        finally:
            os.close(fd)

    def entries(self) -> list[Kept]:
        """All that are complete, the least recently used first."""
        found = []
        for digest in self._digests():
            environment = self._read(digest)
            if environment is not None:
                with self._alone(digest) as alone:
                    found.append(Kept(environment, self._used(digest), not alone))
        return sorted(found, key=lambda kept: kept.used)

    def clear(self, digests: list[str] | None = None) -> tuple[list[str], list[str]]:
        """Removes those (None: all) that are not in use; the digests of what went, and of what is in use."""
        gone: list[str] = []
        kept: list[str] = []
        for digest in self._digests() if digests is None else digests:
            (gone if self._remove(digest) else kept).append(digest)
        return gone, kept

    def sweep(self, now: float) -> list[str]:
        """Removes what killed builders left, and the least recently used over the limit. now: since the epoch."""
        gone = [digest for digest in self._digests() if self._read(digest) is None and self._remove(digest)]
        self._drop_logs(now - _LOG_S)
        kept = self.entries()
        total = sum(each.environment.size_bytes for each in kept)
        for each in kept:
            if total <= self._limit_bytes:
                break
            digest = each.environment.digest
            if now - each.used > _UNUSED_S and self._remove(digest):
                total -= each.environment.size_bytes
                gone.append(digest)
        return gone

    def _drop_logs(self, before: float) -> None:
        """Those of failures; of an environment that is there it stays."""
        for log in (self.root / "logs").glob("*.log"):
            with contextlib.suppress(OSError):
                if log.stat().st_mtime < before and not (self.root / log.stem).exists():
                    log.unlink()

    # one environment; the caller of these has its lock

    def _build(self, digest: str, build: Callable[[Path], Built]) -> Environment:
        home = self.root / digest
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _empty(home)
        folder = home / os.urandom(4).hex()
        folder.mkdir(mode=0o700)
        begun = time.monotonic()
        try:
            built = build(folder)
            made = Environment(
                digest,
                folder,
                built.requirements,
                built.packages,
                round(time.monotonic() - begun, 3),
                _size_bytes(folder),
                round(time.time(), 3),
            )
            _sync(folder)  # a loss of power must not leave a ready.json without what it names
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        text = json.dumps({**asdict(made), "folder": folder.name})
        new = home / "ready.json.new"
        new.write_text(text, encoding="utf-8")
        (home / "used").touch()
        new.rename(home / "ready.json")
        return made

    def _remove(self, digest: str) -> bool:
        """False where it is in use."""
        with self._alone(digest) as alone:
            if not alone:
                return False
            home = self.root / digest
            with contextlib.suppress(FileNotFoundError):
                (home / "ready.json").unlink()  # first: from now on it is only a leftover
            shutil.rmtree(home, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                self.log_of(digest).unlink()
            return True

    def _read(self, digest: str) -> Environment | None:
        """None also where what it rests on is gone: the interpreter, or the runtime that it is linked to."""
        home = self.root / digest
        try:
            values = json.loads((home / "ready.json").read_bytes())
            values |= {"folder": home / values["folder"], "requirements": tuple(values["requirements"])}
            found = Environment(**values)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        whole = found.python.exists() and (found.folder / "runtime" / "tidemill_runtime").exists()
        return found if whole else None

    def _used(self, digest: str) -> float:
        try:
            return (self.root / digest / "used").stat().st_mtime
        except OSError:
            return 0.0

    def _digests(self) -> list[str]:
        try:
            names = [entry.name for entry in self.root.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name not in ("locks", "logs") and (self.root / name).is_dir())

    def _open_lock(self, digest: str) -> int:
        """Lock files stay for ever: a few bytes each, and nobody can hold one that is no longer there."""
        for folder in (self.root / "locks", self.root / "logs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self.lock_of(digest), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def _alone(self, digest: str) -> Iterator[bool]:
        """Whether nobody else builds, removes or uses it; nobody does so until the end of the block, then."""
        fd = self._open_lock(digest)
        try:
            yield _try_lock(fd)
        finally:
            os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _empty(home: Path) -> None:
    """Removes what attempts before have left."""
    for entry in home.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _size_bytes(folder: Path) -> int:
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(top, name).lstat().st_size
    return total


def _sync(folder: Path) -> None:
    """Has the file system of `folder` write all of it down."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ctypes.CDLL(None).syncfs(fd)
    finally:
        os.close(fd)
