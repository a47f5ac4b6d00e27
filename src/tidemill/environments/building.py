"""Building one environment with uv: a venv of our own Python, the requirements in it, the runtime beside them.

Called by `finding`, with an attempt's folder of the cache. uv, and what it starts to build source packages, runs as
instances do: in a session and a folder of its own, with limits, without rights, with an environment that holds nothing
of ours but where packages come from. It dies with the thread that waits for it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from tidemill.domain.errors import EnvironmentFailed
from tidemill.engines import logs, procfs, spawn
from tidemill.environments.cache import Built, Cancelled
from tidemill.environments.own import runtime_bounds, runtime_parts
from tidemill.environments.requirements import Wanted

_POLL_S = 0.03
_LOOK_EVERY_S = 0.5
_LOG_BYTES_MAX = 8 << 20
_OPEN_FILES = 65_536
_FILE_BYTES = 1 << 40
_WORDS_LINES, _WORDS_CHARACTERS = 30, 4000
_MARKER = "TIDEMILL_INSTALL"
_CHECK = "import tidemill_runtime.agent"
_PASSED_ON = (
    *("PATH", "LD_LIBRARY_PATH", "TZ", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "CUDA_HOME", "PKG_CONFIG_PATH"),
)
_PASSED_ON_TO_A_USER = ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "CARGO_HOME", "RUSTUP_HOME")
_OURS_TO_SAY = re.compile(r"UV_(PYTHON|SYSTEM_PYTHON|TARGET|PREFIX|PROJECT|PUBLISH|TOOL|BREAK|CONFIG_FILE|NO_CONFIG).*")
"""Variables of uv that would lead it elsewhere; those that say where packages come from are passed on."""
_NO_NEWS = re.compile(r"Using (C?Python|virtual)|Resolved |Prepared |Downloading |Downloaded |Building |Built ")


@dataclass(frozen=True)
class Installer:
    """How environments are built here. within_s: how long it may take. source_builds: whether packages without a wheel
    may be built. isolated: on a server, a home of its own; otherwise the user's. environ: the user's environment.
    """

    within_s: float
    source_builds: bool
    isolated: bool
    environ: Mapping[str, str]

    def build(
        self,
        folder: Path,
        wanted: Wanted,
        log: Path,
        *,
        cancelled: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> Built:
        """Fills the empty `folder`. tell: gets what is being done, in words.

        Raises EnvironmentFailed with uv's own words, Cancelled.
        """
        with log.open("wb"):
            log.chmod(0o600)
        work = _Work(self, folder, log, time.monotonic() + self.within_s, cancelled)
        count = len(wanted.requirements)
        tell(f"resolving {count} requirement{'s' if count != 1 else ''}")
        work.uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
        (folder / "requirements.txt").write_text(_text(wanted.options, wanted.requirements), encoding="utf-8")
        # Where everything has a hash, bounds may not be given; a runtime that finds too old a library fails below.
        bounds = [*wanted.constraints, *([] if wanted.hashed else runtime_bounds())]
        (folder / "constraints.txt").write_text(_text(bounds), encoding="utf-8")
        python = folder / "venv" / "bin" / "python"
        asked = ["-r", str(folder / "requirements.txt")]
        asked += ["-c", str(folder / "constraints.txt")] if bounds else []
        only = [] if self.source_builds else ["--no-build"]
        work.uv("pip", "install", "--python", str(python), *asked, *only, tell=tell)
        site = folder / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        packages = {each.name: each.version for each in importlib.metadata.distributions(path=[str(site)])}
        link_runtime(folder, site)
        work.run([str(python), "-P", "-c", _CHECK])
        work.clear()
        return Built(dict(sorted(packages.items())), (*wanted.options, *wanted.requirements))

    def variables(self, scratch: Path) -> dict[str, str]:
        """The environment of uv and of what it starts. scratch: its folder for temporary files."""
        names = _PASSED_ON if self.isolated else (*_PASSED_ON, *_PASSED_ON_TO_A_USER)
        passed = {name: self.environ[name] for name in names if name in self.environ}
        passed |= {
            name: value
            for name, value in self.environ.items()
            if name.startswith("UV_") and not _OURS_TO_SAY.fullmatch(name)
        }
        if "PIP_INDEX_URL" in self.environ and not passed.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
            passed["UV_DEFAULT_INDEX"] = self.environ["PIP_INDEX_URL"]
        if "PIP_EXTRA_INDEX_URL" in self.environ and not passed.keys() & {"UV_INDEX", "UV_EXTRA_INDEX_URL"}:
            passed["UV_EXTRA_INDEX_URL"] = self.environ["PIP_EXTRA_INDEX_URL"]
        home = self.environ.get("HOME")
        cache = self.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else str(scratch))
        ours = {
            "HOME": str(scratch),
            "UV_CACHE_DIR": f"{cache}/uv",
            "TMPDIR": str(scratch),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_COLOR": "1",
        }
        if home is not None and Path(home, ".netrc").is_file():
            ours["NETRC"] = f"{home}/.netrc"
        config = self.config()
        if config is not None:
            ours["UV_CONFIG_FILE"] = config
        return {**ours, **passed, "TMPDIR": str(scratch)}

    def config(self) -> str | None:
        """The user's configuration of uv: never one that lies beside a package."""
        base = self.environ.get("XDG_CONFIG_HOME") or (
            f"{self.environ['HOME']}/.config" if "HOME" in self.environ else ""
        )
        places = [self.environ.get("UV_CONFIG_FILE"), f"{base}/uv/uv.toml" if base else None, "/etc/uv/uv.toml"]
        return next((place for place in places if place and os.path.isfile(place)), None)  # noqa: PTH113 - text


@dataclass(frozen=True)
class _Work:
    """One attempt. until: monotonic seconds."""

    installer: Installer
    folder: Path
    log: Path
    until: float
    cancelled: Callable[[], bool]

    def uv(self, *arguments: str, tell: Callable[[str], None] | None = None) -> None:
        config = [] if self.installer.config() else ["--no-config"]
        self.run([find_uv_bin(), *arguments, *config], tell)

    def run(self, argv: list[str], tell: Callable[[str], None] | None = None) -> None:
        """Runs it to its end. Raises EnvironmentFailed unless it ends well, Cancelled."""
        scratch = self.folder / "scratch"
        scratch.mkdir(mode=0o700, exist_ok=True)
        marker = f"{self.folder.parent.name}/{self.folder.name}"
        plan = {
            "argv": argv,
            "env": {**self.installer.variables(scratch), _MARKER: marker},
            "scratch": str(scratch),
            "groups": [],
            "cores": [],
            "open_files": _OPEN_FILES,
            "file_bytes": _FILE_BYTES,
            "parent": os.getpid(),
        }
        (self.folder / "spawn.json").write_text(json.dumps(plan), encoding="utf-8")
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", spawn.__file__, str(self.folder)],
                env={},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        begun = procfs.stat(process.pid)
        try:
            self._wait(process, tell)
        finally:
            ticks = begun.start_ticks if begun is not None else 0
            for one in procfs.belonging(process.pid, ticks, f"\0{_MARKER}={marker}\0".encode()):
                procfs.send(one, signal.SIGKILL)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 0:
            raise self._failure(f"ended with exit code {process.returncode}")

    def clear(self) -> None:
        """Removes what is not of the environment; spawn.json may hold credentials of an index."""
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        for name in ("spawn.json", "pid.json"):
            (self.folder / name).unlink()

    def _wait(self, process: subprocess.Popen[bytes], tell: Callable[[str], None] | None) -> None:
        looked = 0.0
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
                return
            if self.cancelled():
                raise Cancelled
            now = time.monotonic()
            if now > self.until:
                raise self._failure(f"took longer than {self.installer.within_s:g} s (environments.install_within_s)")
            if now > looked + _LOOK_EVERY_S:
                looked = now
                logs.bound(self.log, _LOG_BYTES_MAX)
                if tell is not None:
                    self._tell(tell)

    def _tell(self, tell: Callable[[str], None]) -> None:
        found = re.findall(r"^Resolved (\d+ packages?)", self._said(), re.MULTILINE)
        if found:
            tell(f"installing {found[-1]}")

    def _failure(self, what: str) -> EnvironmentFailed:
        lines = [line.strip() for line in self._said().splitlines() if line.strip() and not _NO_NEWS.match(line)]
        begun = [at for at, line in enumerate(lines) if line.startswith(("error:", "×"))]
        words = "\n".join(lines[begun[-1] if begun else 0 :][:_WORDS_LINES])
        words = words.removeprefix("error: ")[:_WORDS_CHARACTERS] or f"uv {what}."
        if "longer than" in what:
            words = f"Installing {what}. {words}"
        return EnvironmentFailed(words, log=str(self.log))

    def _said(self) -> str:
        with suppress(OSError), self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - (64 << 10)))
            return file.read().decode(errors="replace")
        return ""


def link_runtime(folder: Path, site: Path) -> None:
    """Puts our runtime and what it uses behind the environment's own packages on its path: theirs come first."""
    runtime = folder / "runtime"
    runtime.mkdir()
    for part in runtime_parts():
        for path in part.paths:
            (runtime / path.name).symlink_to(path)
    (site / "tidemill_runtime.pth").write_text(f"{runtime}\n", encoding="utf-8")


def _text(*parts: tuple[str, ...] | list[str]) -> str:
    return "".join(f"{line}\n" for part in parts for line in part)
