"""Where a run without a server keeps its journal and logs, and the lock that keeps two runs off one output folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from pathlib import Path

from tidemill.domain import layout
from tidemill.domain.errors import OutputTaken
from tidemill.domain.location import Location
from tidemill.ports.objects import Objects

_LOCK = "lock"


def home_of(objects: Objects, output: Location, data: Path) -> Path:
    """The folder for what `run` keeps of an output. It need not be there yet.

    Beside the staged parts where that is a folder of this machine, otherwise below the data folder, by the address.
    """
    access = objects.grant_read(output.child(layout.CLAIM), 60.0)
    if access.kind == "path":
        return Path(access.location).parent
    return data / "runs" / hashlib.sha256(f"{output.bucket}/{output.key}".encode()).hexdigest()[:20]


def journal_path(home: Path, task: str) -> Path:
    return home / task / "journal.jsonl"


class FolderLock:
    """Held for as long as a run is at work; the kernel gives it back when the process ends, however it ends.

    Its file also says which task of `tidemill run` was begun here last, and outlives a run that is not finished: so a
    claim of ours is told from that of a server.
    """

    def __init__(self, home: Path, output: Location) -> None:
        """Makes `home`. Raises OutputTaken if another process holds the lock."""
        home.mkdir(parents=True, exist_ok=True)
        self._path = home / _LOCK
        while True:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self._fd, 100, 0).decode(errors="replace").partition(" ")[0]
                os.close(self._fd)
                raise OutputTaken(
                    f"another `tidemill run` (process {holder or 'unknown'}) is at work in {output}.",
                    field="output.path",
                    remedy="Wait for it, stop it, or choose another folder.",
                ) from None
            if self._is_current():
                return
            os.close(self._fd)  # its owner removed the file in this moment

    def note(self, task: str, scratch: str) -> None:
        """Writes down who is at work, at what, and the folder that is to go when this process is no more."""
        text = f"{os.getpid()} {task} {scratch}\n".encode()
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))

    def release(self, *, remove: bool) -> None:
        """remove: nothing unfinished is left here. May be called again."""
        if self._fd < 0:
            return
        if remove:
            with contextlib.suppress(OSError):
                self._path.unlink()
                self._path.parent.rmdir()  # where nothing else is in it
        os.close(self._fd)
        self._fd = -1

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            return False


def noted_task(home: Path) -> str | None:
    """The task that a run noted here, if there was one."""
    return _noted(home)[1] or None


def noted_scratch(home: Path) -> Path | None:
    """The scratch folder of the run that was here last and did not end by itself."""
    path = Path(_noted(home)[2])
    return path if path.name.startswith("tidemill-") and path.is_dir() else None


def _noted(home: Path) -> tuple[str, str, str]:
    """Process, task and scratch folder, as far as they are known."""
    try:
        words = (home / _LOCK).read_text(errors="replace").rstrip("\n").split(" ", 2)
    except (FileNotFoundError, NotADirectoryError):
        words = []
    process, task, scratch, *_ = [*words, "", "", ""]
    return process, task, scratch
